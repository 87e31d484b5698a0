package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
)

// portRange are the port numbers from which addresses are taken.
type portRange struct {
	first, last uint64
	taken       atomic.Uint64 // how many were, and the place of the first
}

// ports are the port numbers of this process. The system does not give them to
// outgoing connections, which could take one while its server is away.
var ports portRange

func (r *portRange) set(first, last uint64) {
	r.first, r.last = first, last
	r.taken.Store(rand.Uint64N(last - first + 1))
}

// freeAddress returns an address without a listener that was not returned lately.
func freeAddress() string {
	for {
		n := ports.first + ports.taken.Add(1)%(ports.last-ports.first+1)
		address := fmt.Sprintf("127.0.0.1:%d", n)
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
}
