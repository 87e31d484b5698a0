package modelservers

import (
	"net/netip"
	"slices"

	"github.com/promptmill/promptmill/worker/modelserver"
)

// goneAfter is the number of lookups in a row without an address after which its server counts
// as gone: some name servers give only a part of the addresses each time.
const goneAfter = 3

// Name is the name in the URL of a model server, and the servers at its addresses.
type Name struct {
	// URL has the name.
	URL string
	// Servers are the servers by their addresses. One that is reached by the name has the zero
	// address.
	Servers map[netip.Addr]*modelserver.Server

	missed map[netip.Addr]int // how many times in a row an address was not found
}

// NewName returns the name in a URL, without servers.
func NewName(url string) *Name {
	return &Name{
		URL:     url,
		Servers: map[netip.Addr]*modelserver.Server{},
		missed:  map[netip.Addr]int{},
	}
}

// Changes returns the addresses that come and go when some are found. A name with one address
// that is not known is the server that is reached by the name, wherever it moves.
func (n *Name) Changes(found []netip.Addr) (come, gone []netip.Addr) {
	var none netip.Addr
	if len(found) == 0 || n.Servers[none] != nil && len(found) == 1 {
		return nil, nil
	}

	for _, address := range found {
		if n.Servers[address] == nil {
			come = append(come, address)
		}
	}

	for address := range n.Servers {
		switch {
		case slices.Contains(found, address):
			delete(n.missed, address)
		case address == none || n.missed[address]+1 == goneAfter:
			delete(n.missed, address)
			gone = append(gone, address)
		default:
			n.missed[address]++
		}
	}

	slices.SortFunc(gone, netip.Addr.Compare)

	return come, gone
}
