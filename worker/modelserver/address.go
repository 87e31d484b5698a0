package modelserver

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"
)

// WithAddress makes the server connect to this address of the host in its URL. All requests
// name the host as before: in the Host header, and in TLS.
func WithAddress(at netip.Addr) Option { return func(s *Server) { s.at = at } }

// dialServer connects to an address of the server's host.
func (s *Server) dialServer(ctx context.Context, network, address string) (net.Conn, error) {
	return s.dialer.DialContext(ctx, network, s.pinAddress(address))
}

// pinAddress returns host and port with the address from WithAddress in the host's place.
func (s *Server) pinAddress(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil || !s.at.IsValid() {
		return address
	}
	return net.JoinHostPort(s.at.String(), port)
}

// resolveFunc finds the addresses of a name.
type resolveFunc func(ctx context.Context, network, host string) ([]netip.Addr, error)

// resolveTimeout bounds the lookup of a name's addresses.
const resolveTimeout = 5 * time.Second

// LookupAddresses returns the addresses of the name in a model server's URL if each of them is
// a server of its own: a headless service, or a name that DNS gives in turns. Of a host with an
// address of each family it returns one of them. It returns none if the name must be left as it
// is: if it is an address, or is reached through a proxy; or if an address is public, since
// public names with several addresses have load balancers there. An error comes from the
// lookup.
func LookupAddresses(ctx context.Context, base string) ([]netip.Addr, error) {
	return resolveAddresses(ctx, base, net.DefaultResolver.LookupNetIP)
}

// resolveAddresses is LookupAddresses with a resolver.
func resolveAddresses(ctx context.Context, base string, find resolveFunc) ([]netip.Addr, error) {
	p, _, err := parseBaseURL(base)
	if err != nil {
		return nil, err
	}

	u, err := url.Parse(p.origin)
	if err != nil {
		return nil, err
	}

	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return nil, nil
	}

	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); proxy != nil || err != nil {
		return nil, nil
	}

	limited, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()

	all, err := find(limited, "ip", u.Hostname())
	if err != nil {
		return nil, err
	}

	return selectServers(all), nil
}

// selectServers returns the addresses of a name that are servers of their own. They come in the
// order in which this host reaches them best (RFC 6724). A host with both families has one of
// each, so those of the first one's family are all there are.
func selectServers(all []netip.Addr) []netip.Addr {
	var list []netip.Addr
	for _, a := range all {
		a = a.Unmap()
		if isPublic(a) {
			return nil
		}

		if len(list) == 0 || a.Is4() == list[0].Is4() {
			list = append(list, a)
		}
	}

	slices.SortFunc(list, netip.Addr.Compare)

	return slices.Compact(list)
}

// carrierNAT is the network of hosts behind the address of a carrier (RFC 6598). Tailscale and
// some clusters use it.
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

// isPublic reports whether an address is for the whole internet.
func isPublic(a netip.Addr) bool {
	return !(a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || carrierNAT.Contains(a))
}
