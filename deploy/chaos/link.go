package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"
)

// link is the way from a part to another, or to each node of a cluster: proxies that
// share one toxic.
type link struct {
	name      string
	addresses []string // of the proxies, in the order of their goals
	listeners []net.Listener
	pumps     sync.WaitGroup

	mu      sync.Mutex
	toxic   toxic
	losses  *rand.Rand    // of toxic
	changed chan struct{} // closed when toxic changes
	open    map[net.Conn]bool
	closed  bool
}

// toxic is how a link misbehaves (Toxiproxy's word). The zero value is a good link.
type toxic struct {
	cut   bool          // all connections are reset
	hang  bool          // connections are taken, and nothing passes
	delay time.Duration // for each piece
	rate  int           // bytes a second; 0: no bound
	loss  float64       // how often a connection is reset for each byte, in the mean
	seed  uint64        // from which the losses follow
}

const pieceBytes = 16 << 10

// flow is one direction of a connection.
type flow struct {
	losses *rand.Rand // of the toxic by which left was drawn
	left   float64    // bytes that pass before the connection is reset
}

// isLost reports whether a piece of n bytes is lost. How far a flow comes is drawn when it
// first moves under a toxic: the k-th flow to move comes as far as the k-th number that
// follows from the seed, however its bytes are cut into pieces. Which flow is the k-th is
// timing. The caller holds mu.
func (l *link) isLost(w *flow, n int) bool {
	if l.toxic.loss == 0 {
		return false
	}

	if w.losses != l.losses {
		w.losses, w.left = l.losses, l.losses.ExpFloat64()/l.toxic.loss
	}

	w.left -= float64(n)

	return w.left < 0
}

func newLink(name string, goals ...string) (*link, error) {
	l := &link{name: name, changed: make(chan struct{}), open: map[net.Conn]bool{}}
	for _, goal := range goals {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			l.close()
			return nil, fmt.Errorf("open link %s: %w", name, err)
		}

		l.listeners = append(l.listeners, listener)
		l.addresses = append(l.addresses, listener.Addr().String())
		l.pumps.Go(func() { l.acceptConnections(listener, goal) })
	}

	return l, nil
}

// setToxic changes how the link is. Open connections feel it as well.
func (l *link) setToxic(h toxic) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.toxic, l.losses = h, rand.New(rand.NewPCG(h.seed, 3))
	close(l.changed)
	l.changed = make(chan struct{})

	if h.cut {
		l.resetConnections()
	}
}

// resetConnections resets all connections. The caller holds mu.
func (l *link) resetConnections() {
	for conn := range l.open {
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		conn.Close()
		delete(l.open, conn)
	}
}

func (l *link) close() {
	l.mu.Lock()
	l.closed = true

	for _, listener := range l.listeners {
		listener.Close()
	}

	l.resetConnections()
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	l.pumps.Wait()
}

// addConnection notes a connection, or closes it if there is to be none.
func (l *link) addConnection(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.open[conn] = true
	if l.closed || l.toxic.cut {
		l.resetConnections()
		return false
	}

	return true
}

func (l *link) dropConnections(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range conns {
		delete(l.open, conn)
		conn.Close()
	}
}

func (l *link) acceptConnections(listener net.Listener, goal string) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}

		if l.addConnection(conn) {
			l.pumps.Go(func() { l.proxyConnection(conn, goal) })
		}
	}
}

// proxyConnection copies bytes between two ends until one of them closes.
func (l *link) proxyConnection(from net.Conn, goal string) {
	defer l.dropConnections(from)

	if !l.awaitPass(&flow{}, 0) {
		return
	}

	to, err := net.Dial("tcp", goal)
	if err != nil {
		from.(*net.TCPConn).SetLinger(0) // refused
		return
	}
	defer l.dropConnections(to)

	if !l.addConnection(to) {
		return
	}

	var both sync.WaitGroup
	for _, ends := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			defer l.dropConnections(from, to)
			l.copyBytes(ends[0], ends[1])
		})
	}

	both.Wait()
}

func (l *link) copyBytes(from io.Reader, to io.Writer) {
	piece, w := make([]byte, pieceBytes), &flow{}
	for {
		n, err := from.Read(piece)
		if n > 0 {
			if !l.awaitPass(w, n) {
				return
			}
			if _, err := to.Write(piece[:n]); err != nil {
				return
			}
		}

		if err != nil {
			return
		}
	}
}

// awaitPass waits until a piece of n bytes may pass. It returns false when its connection
// is to be reset.
func (l *link) awaitPass(w *flow, n int) bool {
	for {
		l.mu.Lock()
		h, healed, closed := l.toxic, l.changed, l.closed
		lost := !h.hang && l.isLost(w, n)
		l.mu.Unlock()
		switch {
		case closed || h.cut || lost:
			return false
		case h.hang:
			<-healed
			continue
		}

		wait := h.delay
		if h.rate > 0 {
			wait += time.Duration(n) * time.Second / time.Duration(h.rate)
		}

		time.Sleep(wait)

		return true
	}
}

// joinURLs are the addresses with a scheme before each, joined by commas.
func (l *link) joinURLs(scheme string) string {
	return scheme + strings.Join(l.addresses, ","+scheme)
}
