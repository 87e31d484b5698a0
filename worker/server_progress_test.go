package worker

import (
	"testing"
	"time"
)

// The patience with a slow server ends once it has answered quickly for a while.
func TestPatienceEnds(t *testing.T) {
	t.Parallel()

	var p serverProgress
	if got := p.extendPatience(time.Minute, time.Hour); got != 2*time.Minute {
		t.Fatalf("patience of %v", got)
	}

	for i := range 3 * quickAnswersToReset {
		p.recordAnswer(time.Now(), i%quickAnswersToReset > 0)
	}

	if got := p.patience(time.Minute); got != 2*time.Minute {
		t.Errorf("patience of %v while some answers are slow", got)
	}

	p.recordAnswer(time.Now(), true)
	if got := p.patience(time.Minute); got != time.Minute {
		t.Errorf("patience of %v after %d quick answers", got, quickAnswersToReset)
	}
}
