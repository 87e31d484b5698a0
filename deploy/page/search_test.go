package page

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/collector/journal"
)

// A search finds a line by its custom_id, in whatever way the line spells it, and by the shortened one that the page
// shows as an example of a failure.
func TestSearchFindsCustomID(t *testing.T) {
	t.Parallel()

	long := strings.Repeat("é", 5000)
	for _, tc := range []struct {
		name, written, wanted string
		found                 bool
	}{
		{"markup", `"<b>\"1\"</b>"`, `<b>"1"</b>`, true},
		{"escaped markup", `"\u003cb\u003e"`, "<b>", true},
		{"right to left", `"שלום \u202e7"`, "שלום \u202e7", true},
		{"two lines", `"a\nb"`, "a\nb", true},
		{"spaces", `" a "`, "a", false},
		{"a part", `"row-10"`, "row-1", false},
		{"long", strconv.Quote(long), long, true},
		{"a long example", strconv.Quote(long), journal.ShortenID(long), true},
		{"the beginning of a long one", strconv.Quote(long), long[:300], false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()

			w := httptest.NewRecorder()
			s := &search{
				result:  FindResult{CustomID: tc.wanted},
				w:       w,
				control: http.NewResponseController(w),
			}

			lines := `{"id":"1","custom_id":"other"}` + "\n" + `{"id":"2","custom_id":` + tc.written + "}\n"
			_, err := io.Copy(s, strings.NewReader(lines))
			if found := errors.Is(err, errFound); found != tc.found {
				t.Fatalf("found = %t (%v), want %t", found, err, tc.found)
			}

			if isExample := tc.wanted == journal.ShortenID(long); s.isExample != isExample {
				t.Errorf("isExample = %t, want %t", s.isExample, isExample)
			}

			if tc.found && !strings.Contains(string(s.result.Lines[0].Line), `"id":"2"`) {
				t.Errorf("found %s, want the line with the id 2", s.result.Lines[0].Line)
			}
		})
	}
}
