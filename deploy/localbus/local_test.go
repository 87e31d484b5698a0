package localbus

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Addresses are for other machines, LocalAddress is for this one.
func TestAddresses(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		listen, advertise string
		want              string // empty: no other machine reaches it
		here              string
	}{
		{"127.0.0.1:4333", "", "", "127.0.0.1:4333"},
		{"127.0.1.1:4333", "", "", "127.0.1.1:4333"},
		{"[::1]:4333", "", "", "[::1]:4333"},
		{"127.0.0.1:4333", "head", "head:4333", "127.0.0.1:4333"}, // through a tunnel
		{"192.0.2.7:4333", "", "192.0.2.7:4333", "192.0.2.7:4333"},
		{"192.0.2.7:4333", "head", "head:4333", "192.0.2.7:4333"},
		{"0.0.0.0:4333", "head", "head:4333", "127.0.0.1:4333"},
		{"0.0.0.0:4333", "head:9999", "head:9999", "127.0.0.1:4333"}, // a port that is forwarded
		{"[::]:4333", "2001:db8::7", "[2001:db8::7]:4333", "127.0.0.1:4333"},
		{"[::]:4333", "[2001:db8::7]", "[2001:db8::7]:4333", "127.0.0.1:4333"},
		{":4333", "head", "head:4333", "127.0.0.1:4333"},
	} {
		b := Bus{Listen: test.listen, Advertise: test.advertise}
		var want []string
		if test.want != "" {
			want = []string{test.want}
		}

		if diff := cmp.Diff(want, b.Addresses()); diff != "" {
			t.Errorf("listening at %s, advertised as %q (-want +got):\n%s", test.listen, test.advertise, diff)
		}
		if got := b.LocalAddress(); got != test.here {
			t.Errorf("listening at %s: %s from here, want %s", test.listen, got, test.here)
		}

		if want == nil {
			want = []string{test.here}
		}
		if diff := cmp.Diff(want, b.JoinAddresses()); diff != "" {
			t.Errorf("listening at %s: in a join string (-want +got):\n%s", test.listen, diff)
		}
	}

	// At all addresses: those of the machine. A string for others never has a loopback address.
	for _, listen := range []string{"0.0.0.0:4333", "[::]:4333", ":4333"} {
		var want []string
		for _, a := range MachineAddresses() {
			if a.Is4() || listen != "0.0.0.0:4333" {
				want = append(want, netip.AddrPortFrom(a, 4333).String())
			}
		}

		want = want[:min(len(want), maxAddresses)]
		if diff := cmp.Diff(want, Bus{Listen: listen}.Addresses()); diff != "" {
			t.Errorf("listening at %s (-want +got):\n%s", listen, diff)
		}
	}
}

func TestRankAddresses(t *testing.T) {
	t.Parallel()

	up := func(name string, addresses ...string) network {
		return network{name: name, running: true, addresses: parseAddresses(t, addresses...)}
	}

	down := func(name string, addresses ...string) network {
		return network{name: name, addresses: parseAddresses(t, addresses...)}
	}

	lo := up("lo", "127.0.0.1", "::1")
	for name, tt := range map[string]struct {
		networks []network
		sources  []string
		want     []string
	}{
		"no network": {networks: []network{lo}},
		"IPv4 before IPv6": {
			networks: []network{lo, up("eth0", "fe80::1", "fd00::7", "192.168.1.7")},
			sources:  []string{"192.168.1.7", "fd00::7"},
			want:     []string{"192.168.1.7", "fd00::7"},
		},
		"the source first": {
			networks: []network{lo, up("eth0", "10.0.0.7"), up("wlan0", "192.168.1.7"), up("tailscale0", "100.64.0.7")},
			sources:  []string{"192.168.1.7"},
			want:     []string{"192.168.1.7", "10.0.0.7", "100.64.0.7"},
		},
		"containers and virtual machines": {
			networks: []network{
				lo, up("docker0", "172.17.0.1"), up("br-0123456789ab", "172.18.0.1"), up("virbr0", "192.168.122.1"),
				up("vethd1e2", "10.9.9.1"), up("eth0", "10.0.0.7"), up("cni0", "10.42.0.1"),
			},
			sources: []string{"10.0.0.7"},
			want:    []string{"10.0.0.7"},
		},
		"a bridge with the cable in it": {
			networks: []network{lo, up("br0", "10.0.0.7"), up("br-lan", "10.1.0.7")},
			sources:  []string{"10.0.0.7"},
			want:     []string{"10.0.0.7", "10.1.0.7"},
		},
		"the source is in a network of containers": {
			networks: []network{lo, up("docker0", "172.17.0.1")},
			sources:  []string{"172.17.0.1"},
			want:     []string{"172.17.0.1"},
		},
		"a cable that is not plugged in": {
			networks: []network{lo, down("eth0", "10.0.0.7"), up("eth1", "10.1.0.7")},
			want:     []string{"10.1.0.7"},
		},
		"one address twice": {
			networks: []network{up("eth0", "10.0.0.7", "10.0.0.7")},
			want:     []string{"10.0.0.7"},
		},
	} {
		got := rankAddresses(tt.networks, parseAddresses(t, tt.sources...))
		if diff := cmp.Diff(parseAddresses(t, tt.want...), got,
			cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func parseAddresses(t *testing.T, texts ...string) (list []netip.Addr) {
	t.Helper()
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}

	return list
}
