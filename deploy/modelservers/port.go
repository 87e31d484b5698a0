package modelservers

import (
	"fmt"
	"net"
	"strconv"
)

// The ports for servers that are started, every second one. They lie below those that systems give to
// outgoing connections (from 32768 on Linux), so that none takes the port of a server that loads, and
// below the node ports of Kubernetes (from 30000).
const (
	firstPort = 20000
	lastPort  = 29998
)

// heldPort is a port of this host for a server that is started. The port after it is listened at as long
// as the port is held, also while the server loads or is started again: so no other promptmill of this
// host takes it, of whichever user, and the end of this process gives it back.
type heldPort struct {
	number int
	lock   net.Listener
}

// holdPort finds a port of this host at which nothing listens. It takes the first one, so that a server
// that is started again another day has the same URL.
func holdPort() (*heldPort, error) {
	var failure error
	for number := firstPort; number <= lastPort; number += 2 {
		lock, err := net.Listen("tcp", loopback(number+1))
		if err != nil {
			failure = err
			continue
		}

		if err = probePort(number); err == nil {
			return &heldPort{number, lock}, nil
		}

		failure = err
		lock.Close()
	}

	return nil, fmt.Errorf("find a free port for a model server, from %d to %d: %w", firstPort, lastPort, failure)
}

// probePort returns an error if something listens at a port, at any address of this host.
func probePort(number int) error {
	for _, address := range []string{loopback(number), net.JoinHostPort("", strconv.Itoa(number))} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		l.Close()
	}
	return nil
}

// loopback returns the address of a port at this host.
func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// release gives the port back.
func (p *heldPort) release() {
	if p != nil {
		p.lock.Close()
	}
}
