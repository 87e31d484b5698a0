package notice

import (
	"fmt"
	"strings"
	"time"

	"github.com/promptmill/promptmill/proto"
)

const (
	// maxContent is the longest content of a file or a URL that can name a deadline, in bytes.
	maxContent = 128
	// maxLeft is the longest time left that is believed.
	maxLeft = 7 * 24 * time.Hour
)

// parseContent reads the deadline in the content of a file or a URL: an RFC 3339 time, or a duration that counts from
// written. It returns the time left at now; named is false if the content is empty, and so names none.
func parseContent(text string, written, now time.Time) (left time.Duration, named bool, err error) {
	text = strings.TrimSpace(text)

	switch {
	case text == "":
		return 0, false, nil
	case len(text) > maxContent:
		return 0, false, fmt.Errorf("%d bytes are no deadline: %s", len(text), deadlineForms)
	}

	if d, err := time.ParseDuration(text); err == nil {
		if written.After(now) {
			written = now // by another clock
		}
		left = d - now.Sub(written)
	} else if t, err := time.Parse(time.RFC3339, text); err == nil {
		left = t.Sub(now)
	} else {
		return 0, false, fmt.Errorf("%s is no deadline: %s", quote(text), deadlineForms)
	}

	if left > maxLeft {
		return 0, false, fmt.Errorf("%s is more than 7 days away", text)
	}

	return max(0, left), true, nil
}

// isTimeLeft reports whether a text is a time left, and no time of the clock.
func isTimeLeft(text string) bool {
	_, err := time.ParseDuration(strings.TrimSpace(text))
	return err == nil
}

// deadlineForms says how a deadline is written.
const deadlineForms = "write a time such as 2026-01-31T18:00:00Z, or the time left, such as 120s"

// readTimeLeft reads the time of an event at a metadata service, and returns the time left. sent is the time of the
// service when it answered: the clock of this box may be wrong.
func readTimeLeft(layout, text string, sent time.Time) (time.Duration, error) {
	t, err := time.Parse(layout, text)
	if err != nil {
		return 0, fmt.Errorf("the time of the event is %s", quote(text))
	}

	left := t.Sub(sent)
	if left > maxLeft {
		return 0, fmt.Errorf("the time of the event is %s, more than 7 days away", text)
	}

	return max(0, left), nil
}

// quote quotes the beginning of a text from outside.
func quote(text string) string { return fmt.Sprintf("%q", proto.Excerpt(text)) }
