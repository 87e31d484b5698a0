package pipeline

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"github.com/promptmill/promptmill/deploy/inputerror"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/producer"
)

// The text of a rejected line comes from others: on a screen it neither moves the cursor nor
// makes a line of its own.
func TestRejectedLineIsPrintable(t *testing.T) {
	t.Parallel()

	const hostile = "a\x1b]0;title\x07\x1b[2J\x1bc\u009b31m\u0085\u202e\u2066\u200e\u2028\x7f\b\r\nforged\tcolumn"
	var b bytes.Buffer
	screen := terminal.New(terminal.Config{
		Out:  &b,
		Mode: terminal.ModePlain,
	})

	fault := &producer.LineError{Fault: producer.FaultURL, Detail: hostile}
	RejectInput(Hooks{Printf: screen.Printf}, inputerror.Input{}, producer.Report{Reasons: []producer.Reason{{
		LineError: fault,
		Count:     1,
		Examples: []producer.Problem{{
			File:     hostile,
			Line:     1,
			CustomID: hostile,
			Err:      fault,
		}},
	}}, Count: 1}, 1, "")

	got := b.String()
	if !strings.Contains(got, "title") || !strings.Contains(got, "forged") {
		t.Errorf("the text is not there: %q", got)
	}

	if bad := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' {
			return -1
		}
		return r
	}, got); bad != "" {
		t.Errorf("%q in %q", bad, got)
	}

	if n := strings.Count(got, "\n"); n != 1 {
		t.Errorf("%d lines, want 1: %q", n, got)
	}
}
