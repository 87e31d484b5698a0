package output

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/proto"
)

// The metadata of an output that an earlier version wrote is refused, and not changed.
func TestReadMetaEarlierSchema(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile("testdata/schema2.meta.json")
	fixture.Must(t, err)

	out := Prefix(filepath.Join(t.TempDir(), "out"))
	fixture.Must(t, os.WriteFile(out.Meta(), text, 0o644))

	if _, err := out.ReadMeta(); err == nil || !strings.Contains(err.Error(), proto.CheckSchema(2).Error()) {
		t.Errorf("ReadMeta: %v, want %v", err, proto.CheckSchema(2))
	}

	after, err := os.ReadFile(out.Meta())
	if diff := cmp.Diff(string(text), string(after)); err != nil || diff != "" {
		t.Errorf("the metadata was changed (%v):\n%s", err, diff)
	}
}
