package producer

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/proto"
)

// An input that was changed since it was validated ends a round with an error, whichever
// part was changed, and whether or not this process has validated it.
func TestChangedInput(t *testing.T) {
	t.Parallel()

	const n = 300
	for _, tt := range []struct {
		name   string
		change func(text string) string
	}{
		{"a line in the place of another", func(text string) string {
			all := strings.SplitAfter(text, "\n")
			all[n-1] = all[0]
			return strings.Join(all, "")
		}},
		{"two lines changed places", func(text string) string {
			all := strings.SplitAfter(text, "\n")
			all[3], all[200] = all[200], all[3]
			return strings.Join(all, "")
		}},
		{"another word", func(text string) string { return strings.Replace(text, `"prompt":"`, `"prompt":"-`, 1) }},
		{"a line more", func(text string) string { return text + good("more", "m0") }},
		{"a line less", func(text string) string { return text[:strings.LastIndex(text[:len(text)-1], "\n")+1] }},
		{"nothing left", func(string) string { return "" }},
	} {
		for name, validated := range map[string]bool{"validated by this process": true, "by another": false} {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				t.Parallel()

				b := newBench(t, lines(n), settings, 16<<20)
				path := b.m.Input.Files[0].Path
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}

				if err := os.WriteFile(path, []byte(tt.change(string(text))), 0o644); err != nil {
					t.Fatal(err)
				}

				p := mustNew(t, Config{JS: b.js, Run: b.m.Run, Once: true, Validated: validated})
				if err := p.Run(t.Context()); !errors.Is(err, proto.ErrInputChanged) {
					t.Errorf("Run: %v, want ErrInputChanged", err)
				}

				if b.published(t) {
					t.Error("the round counts as done")
				}

				if published := b.state(t).LastSeq; !validated && published > 0 {
					t.Errorf("%d shards of another input were published", published)
				}
			})
		}
	}
}
