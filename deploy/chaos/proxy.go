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
// can be hurt, all in the same way.
type link struct {
	name      string
	addresses []string // of the proxies, in the order of their goals
	listeners []net.Listener
	pumps     sync.WaitGroup

	mu     sync.Mutex
	hurt   hurt
	losses *rand.Rand    // of hurt
	healed chan struct{} // closed when hurt ends
	open   map[net.Conn]bool
	closed bool
}

// hurt is what a link does to those who use it. The zero value is a good link.
type hurt struct {
	cut   bool          // all connections are reset
	hang  bool          // connections are taken, and nothing passes
	delay time.Duration // for each piece
	rate  int           // bytes a second; 0: no bound
	loss  float64       // how often a connection is reset for each byte, in the mean
	dice  uint64        // from which the losses follow
}

const pieceBytes = 16 << 10

// flow is one direction of a connection.
type flow struct {
	losses *rand.Rand // of the hurt by which left was drawn
	left   float64    // bytes that pass before the connection is reset
}

// lose reports whether a piece of n bytes is lost. How far a flow comes is drawn when it
// first moves under a hurt: the k-th flow to move comes as far as the k-th number that
// follows from the seed, however its bytes are cut into pieces. Which flow is the k-th is
// timing. The caller holds mu.
func (l *link) lose(w *flow, n int) bool {
	if l.hurt.loss == 0 {
		return false
	}

	if w.losses != l.losses {
		w.losses, w.left = l.losses, l.losses.ExpFloat64()/l.hurt.loss
	}

	w.left -= float64(n)

	return w.left < 0
}

func newLink(name string, goals ...string) (*link, error) {
	l := &link{name: name, healed: make(chan struct{}), open: map[net.Conn]bool{}}
	for _, goal := range goals {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			l.close()
			return nil, fmt.Errorf("open link %s: %w", name, err)
		}

		l.listeners = append(l.listeners, listener)
		l.addresses = append(l.addresses, listener.Addr().String())
		l.pumps.Go(func() { l.accept(listener, goal) })
	}

	return l, nil
}

// set changes how the link is. Connections that are there feel it, too.
func (l *link) set(h hurt) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.hurt, l.losses = h, rand.New(rand.NewPCG(h.dice, 3))
	close(l.healed)
	l.healed = make(chan struct{})

	if h.cut {
		l.reset()
	}
}

// reset resets all connections. The caller holds mu.
func (l *link) reset() {
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

	l.reset()
	close(l.healed)
	l.healed = make(chan struct{})
	l.mu.Unlock()
	l.pumps.Wait()
}

// keep notes a connection, or closes it if there is to be none.
func (l *link) keep(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.open[conn] = true
	if l.closed || l.hurt.cut {
		l.reset()
		return false
	}

	return true
}

func (l *link) drop(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range conns {
		delete(l.open, conn)
		conn.Close()
	}
}

func (l *link) accept(listener net.Listener, goal string) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}

		if l.keep(conn) {
			l.pumps.Go(func() { l.join(conn, goal) })
		}
	}
}

// join passes what two ends say to each other until one of them closes.
func (l *link) join(from net.Conn, goal string) {
	defer l.drop(from)

	if !l.pass(&flow{}, 0) {
		return
	}

	to, err := net.Dial("tcp", goal)
	if err != nil {
		from.(*net.TCPConn).SetLinger(0) // refused
		return
	}
	defer l.drop(to)

	if !l.keep(to) {
		return
	}

	var both sync.WaitGroup
	for _, ends := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			defer l.drop(from, to)
			l.pump(ends[0], ends[1])
		})
	}

	both.Wait()
}

func (l *link) pump(from io.Reader, to io.Writer) {
	piece, w := make([]byte, pieceBytes), &flow{}
	for {
		n, err := from.Read(piece)
		if n > 0 {
			if !l.pass(w, n) {
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

// pass waits until a piece of n bytes may pass. It returns false when its connection
// is to be reset.
func (l *link) pass(w *flow, n int) bool {
	for {
		l.mu.Lock()
		h, healed, closed := l.hurt, l.healed, l.closed
		lost := !h.hang && l.lose(w, n)
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

// urls are the addresses with a scheme before each, joined by commas.
func (l *link) urls(scheme string) string {
	return scheme + strings.Join(l.addresses, ","+scheme)
}
