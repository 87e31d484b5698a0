package localbus

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
)

// maxAddresses is the most addresses in a join string, which is pasted by hand.
const maxAddresses = 4

// MachineAddresses returns the addresses of this machine for other machines, the best first. The
// address that a packet to a far machine has as its source comes first, and IPv4 comes before IPv6.
// Addresses of networks that end in this machine, such as Docker's, are left out.
func MachineAddresses() []netip.Addr {
	var networks []network
	interfaces, _ := net.Interfaces() // none: a machine without a network
	for _, i := range interfaces {
		n := network{name: i.Name, running: i.Flags&net.FlagUp != 0 && i.Flags&net.FlagRunning != 0}
		all, _ := i.Addrs() // none: the interface has just gone
		for _, a := range all {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				n.addresses = append(n.addresses, prefix.Addr().Unmap())
			}
		}

		networks = append(networks, n)
	}

	return rankAddresses(networks, sourceAddresses())
}

// network is a network interface of this machine.
type network struct {
	name      string
	running   bool // it is up, and its cable is plugged in
	addresses []netip.Addr
}

// innerNetwork matches the interfaces of networks that connect this machine with its own containers
// and virtual machines. Other machines have the same addresses there.
var innerNetwork = regexp.MustCompile(
	`^(docker|br-[0-9a-f]{12}$|veth|virbr|podman|cni|flannel|nerdctl|lxcbr|lxdbr|incusbr|vboxnet|vmnet)`)

// rankAddresses returns the addresses that other machines may reach, the best first. sources are
// the addresses from which this machine reaches others.
func rankAddresses(networks []network, sources []netip.Addr) (list []netip.Addr) {
	for _, n := range networks {
		for _, a := range n.addresses {
			source := slices.Contains(sources, a)
			if a.IsGlobalUnicast() && !slices.Contains(list, a) &&
				(source || n.running && !innerNetwork.MatchString(n.name)) {
				list = append(list, a)
			}
		}
	}

	rank := func(a netip.Addr) (n int) {
		if !a.Is4() {
			n = 2
		}
		if !slices.Contains(sources, a) {
			n++
		}
		return n
	}
	slices.SortStableFunc(list, func(a, b netip.Addr) int { return rank(a) - rank(b) })

	return list
}

// sourceAddresses returns the addresses from which this machine would reach machines elsewhere, by
// its routes. It sends nothing: the addresses are reserved for documentation.
func sourceAddresses() (list []netip.Addr) {
	for _, far := range []string{"198.51.100.1:9", "[2001:db8::1]:9"} {
		conn, err := net.Dial("udp", far)
		if err != nil {
			continue // there is no route
		}

		if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			list = append(list, a.AddrPort().Addr().Unmap())
		}

		conn.Close()
	}

	return list
}
