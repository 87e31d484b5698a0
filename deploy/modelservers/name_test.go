package modelservers

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/worker/modelserver"
)

// The servers of a name follow its addresses. "-" stands for the server that is reached by the
// name itself.
func TestServersComeAndGo(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		began string
		found []string // one after the other
		want  string   // the servers in the end
	}{
		{"nothing changes", "10.0.0.1 10.0.0.2", []string{"10.0.0.1 10.0.0.2"}, "10.0.0.1 10.0.0.2"},
		{"one more", "10.0.0.1 10.0.0.2", []string{"10.0.0.1 10.0.0.2 10.0.0.3"}, "10.0.0.1 10.0.0.2 10.0.0.3"},
		{"one moves", "10.0.0.1 10.0.0.2", []string{"10.0.0.1 10.0.0.3", "10.0.0.1 10.0.0.3", "10.0.0.1 10.0.0.3"},
			"10.0.0.1 10.0.0.3"},
		{"one is not found for a moment", "10.0.0.1 10.0.0.2",
			[]string{"10.0.0.1", "10.0.0.1", "10.0.0.1 10.0.0.2", "10.0.0.1", "10.0.0.1"}, "10.0.0.1 10.0.0.2"},
		{"one is left", "10.0.0.1 10.0.0.2", []string{"10.0.0.1", "10.0.0.1", "10.0.0.1"}, "10.0.0.1"},
		{"none is found", "10.0.0.1 10.0.0.2", []string{"", "", "", ""}, "10.0.0.1 10.0.0.2"},
		{"one server that moves", "-", []string{"10.0.0.1", "10.0.0.2"}, "-"},
		{"one server becomes two", "-", []string{"10.0.0.1", "10.0.0.1 10.0.0.2"}, "10.0.0.1 10.0.0.2"},
	} {
		n := NewName("http://llm")
		for _, at := range parseAddresses(tt.began) {
			n.Servers[at] = &modelserver.Server{}
		}

		for _, found := range tt.found {
			come, gone := n.Changes(parseAddresses(found))
			for _, at := range come {
				n.Servers[at] = &modelserver.Server{}
			}

			for _, at := range gone {
				delete(n.Servers, at)
			}
		}

		left := map[netip.Addr]bool{}
		for at := range n.Servers {
			left[at] = true
		}

		want := map[netip.Addr]bool{}
		for _, at := range parseAddresses(tt.want) {
			want[at] = true
		}

		if diff := cmp.Diff(want, left, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func parseAddresses(text string) (list []netip.Addr) {
	for one := range strings.FieldsSeq(text) {
		at, _ := netip.ParseAddr(one) // the zero one for "-"
		list = append(list, at)
	}
	return list
}
