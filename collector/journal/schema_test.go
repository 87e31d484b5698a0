package journal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/proto"
)

// A journal that an earlier version wrote is refused, and is not changed by a byte, torn or
// not: that version can still finish the run.
func TestOpenEarlierSchema(t *testing.T) {
	t.Parallel()

	whole, err := os.ReadFile("testdata/schema2.part.zst")
	fixture.Must(t, err)

	for name, data := range map[string][]byte{"whole": whole, "torn": whole[:len(whole)-9]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "out.part.zst")
			fixture.Must(t, os.WriteFile(path, data, 0o644))

			open := func() error { _, err := Open(path); return err }
			create := func() error { _, err := Create(path, fixture.Manifest(6)); return err }
			read := func() error { _, err := ReadManifest(path); return err }

			for name, attempt := range map[string]func() error{"Open": open, "Create": create, "ReadManifest": read} {
				if err := attempt(); err == nil || !strings.Contains(err.Error(), proto.CheckSchema(2).Error()) ||
					!strings.Contains(err.Error(), path) || isCorruption(err) {
					t.Errorf("%s: %v, want %v with the path", name, err, proto.CheckSchema(2))
				}
			}

			after, err := os.ReadFile(path)
			if diff := cmp.Diff(data, after); err != nil || diff != "" {
				t.Errorf("the journal was changed (%v):\n%s", err, diff)
			}
		})
	}
}
