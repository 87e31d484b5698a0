package localbus

import "testing"

// Addresses are for other machines, LocalAddress is for this one.
func TestAddresses(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		listen, advertise string
		want              string // the first
		here              string
	}{
		{"127.0.0.1:4333", "", "127.0.0.1:4333", "127.0.0.1:4333"},
		{"192.0.2.7:4333", "", "192.0.2.7:4333", "192.0.2.7:4333"},
		{"192.0.2.7:4333", "head", "head:4333", "192.0.2.7:4333"},
		{"0.0.0.0:4333", "head", "head:4333", "127.0.0.1:4333"},
		{"0.0.0.0:4333", "head:9999", "head:9999", "127.0.0.1:4333"}, // a port that is forwarded
		{"[::]:4333", "2001:db8::7", "[2001:db8::7]:4333", "127.0.0.1:4333"},
		{":4333", "head", "head:4333", "127.0.0.1:4333"},
	} {
		if got := Addresses(test.listen, test.advertise); len(got) != 1 || got[0] != test.want {
			t.Errorf("listening at %s, advertised as %q: %v, want %s", test.listen, test.advertise, got, test.want)
		}
		if got := (Bus{Listen: test.listen}).LocalAddress(); got != test.here {
			t.Errorf("listening at %s: %s from here, want %s", test.listen, got, test.here)
		}
	}

	// At all addresses: the machine's, and last the loopback address, which always works here.
	for _, listen := range []string{"0.0.0.0:4333", "[::]:4333", ":4333"} {
		got := Addresses(listen, "")
		if len(got) != len(MachineAddresses())+1 || got[len(got)-1] != "127.0.0.1:4333" {
			t.Errorf("listening at %s: %v", listen, got)
		}
	}
}
