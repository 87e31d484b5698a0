package table

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A header has no name where the one before had none, if a reader gives it the same name again.
func TestHeader(t *testing.T) {
	t.Parallel()

	text := Column{Name: "text"}
	for _, tt := range []struct {
		name    string
		columns []Column
		want    []string
	}{
		{"names", []Column{{Name: "id"}, text}, []string{"id", "text"}},
		{"an index", []Column{{Name: "column_1", Unnamed: true}, text}, []string{"", "text"}},
		{
			"an index whose name is taken",
			[]Column{{Name: "column_1_2", Unnamed: true}, text, {Name: "column_1"}},
			[]string{"", "text", "column_1"},
		},
		{
			"an index of another file, at another place",
			[]Column{text, {Name: "column_1", Unnamed: true}},
			[]string{"text", "column_1"},
		},
	} {
		if diff := cmp.Diff(tt.want, Header(tt.columns)); diff != "" {
			t.Errorf("%s: the header differs (-want +got):\n%s", tt.name, diff)
		}
	}
}
