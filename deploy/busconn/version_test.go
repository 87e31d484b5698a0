package busconn

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
)

func TestCheckVersion(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		version       string
		refused, warn bool
	}{
		{"1.4.1", true, false},
		{"2.9.25", true, false},
		{"2.10.29", true, false},
		{"2.11.0", false, true},
		{"2.11.17", false, true},
		{"2.12.15", false, true},
		{"2.14.0-RC.1", false, true},
		{"2.14.9", false, true},
		{"2.14.10", false, false},
		{"2.14.11", false, false},
		{"2.15.0", false, true},
		{"2.15.2", false, true},
		{"2.15.3", false, false},
		{"2.15.3-beta.1", false, false},
		{"2.16.0", false, false},
		{"3.0.0", false, false},
		{"built by hand", false, false},
		{"", false, false},
	} {
		var log bytes.Buffer
		err := CheckVersion("bus.example:4222", tt.version, zerolog.New(&log))
		if refused := err != nil; refused != tt.refused ||
			refused && (exit.Code(err) != exit.CodeUnreachable || !strings.Contains(err.Error(), "at bus.example:4222 has version "+tt.version+", and promptmill needs 2.11") ||
				exit.Hint(err) == "") {
			t.Errorf("%s: %v, refused %v", tt.version, err, tt.refused)
		}

		if warned := strings.Count(log.String(), StreamLossNote); warned != map[bool]int{true: 1}[tt.warn] {
			t.Errorf("%s: warned %d times", tt.version, warned)
		}
	}
}

func TestIsAtLeast(t *testing.T) {
	t.Parallel()

	for version, want := range map[string]bool{
		"2.11.0": true, "2.15.2": true, "3.0.0": true, "2.12.0-RC.1": true, "built by hand": true,
		"2.10.29": false, "2.9.1": false, "1.99.0": false,
	} {
		if got := isAtLeast(version, [2]int{2, 11}); got != want {
			t.Errorf("%s: %v", version, got)
		}
	}
}
