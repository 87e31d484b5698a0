package trial

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/collector/internal/browser"
)

// TestThePageFitsAPhoneAndADesk: the page of a trial shows all of its columns or scrolls them, at each width, and its
// plot has the colours of light and of dark.
func TestThePageFitsAPhoneAndADesk(t *testing.T) {
	t.Parallel()

	b := browser.Open(t)
	pages := newGoldenResults(t)
	pages["crowd"] = Evaluate(newCrowd(60, true), Options{})
	for name, r := range pages {
		var page bytes.Buffer
		if err := r.WriteHTML(&page); err != nil {
			t.Fatal(err)
		}

		for _, width := range []int64{390, 768, 1280} {
			b.Show(page.String(), width)
			for _, scheme := range []string{"light", "dark"} {
				b.SetScheme(scheme)
				what := fmt.Sprintf("%s, %d wide, %s", name, width, scheme)
				if l := b.MeasureLayout(); l.Needs != l.Has || l.Has != int(width) || len(l.Clipped) > 0 {
					t.Errorf("%s: the page has %d and needs %d; clipped: %q", what, l.Has, l.Needs, l.Clipped)
				}
				b.Check(what)
				if name == "quality" {
					b.KeepPicture(name, width, scheme)
				}
			}
		}

		text := browser.Ask[string](b, `document.body.innerText`)
		if name != "crowd" && !strings.Contains(text, r.Answer) { // its names have characters that are not shown
			t.Errorf("%s: the page does not show its answer, %q", name, r.Answer)
		}
	}
}
