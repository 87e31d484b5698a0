package main

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

// Another user than that of the bus is named the way out: another state folder would not be that of the bus.
func TestHintOfForeignState(t *testing.T) {
	t.Parallel()

	denied := fmt.Errorf("open identity.pem: %w", fs.ErrPermission)
	for name, err := range map[string]error{"identity": explainIdentity(denied), "joins": explainJoinFile(denied)} {
		if hint := exit.Hint(err); !strings.HasPrefix(hint, "run this as the user of promptmill serve") {
			t.Errorf("%s: the hint is %q", name, hint)
		}
	}
}
