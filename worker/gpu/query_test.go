package gpu

import (
	"errors"
	"strings"
	"testing"
)

// These tests are not parallel: a script that was just written cannot be executed while the
// fork of another test still has it open.

func TestQuery(t *testing.T) {
	cards, driver, err := runQuery(t.Context(), writeFakeSMI(t, `sed 's/^/570.86.15, /' "$dir/two.csv"`))
	if err != nil || driver != "570.86.15" || len(cards) < 2 || cards[0].MemoryBytes == 0 {
		t.Errorf("got %+v, driver %q, %v", cards, driver, err)
	}
}

func TestQueryFails(t *testing.T) {
	for _, tt := range []struct {
		name, script, words string
		none                bool
	}{
		{"no device", "echo No devices were found; exit 6", "No devices were found", true},
		{"no driver", "echo the driver is not there >&2; exit 9", "the driver is not there", true},
		{"another failure", "echo lost; exit 15", "exit status 15: lost", false},
		{"not a line of it", "echo hello", "it names no card: hello", false},
	} {
		_, _, err := runQuery(t.Context(), writeFakeSMI(t, tt.script))
		if err == nil || errors.Is(err, ErrNone) != tt.none || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}

	if _, _, err := runQuery(t.Context(), "/nowhere/nvidia-smi"); !errors.Is(err, ErrNone) {
		t.Errorf("no nvidia-smi: %v", err)
	}
}
