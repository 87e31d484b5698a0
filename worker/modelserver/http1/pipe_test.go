package http1

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// flow is one direction of a connection in memory: the bytes that were written and not read yet.
type flow struct {
	mu       sync.Mutex
	bytes    []byte
	ended    bool
	deadline time.Time
	changed  chan struct{} // closed when something has
}

func newFlow() *flow { return &flow{changed: make(chan struct{})} }

// change changes the flow and wakes its readers.
func (f *flow) change(how func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how()
	close(f.changed)
	f.changed = make(chan struct{})
}

// read reads the available bytes, or reports that it must wait for a change, and at most for a
// time.
func (f *flow) read(p []byte) (n int, changed <-chan struct{}, most time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()

	most = math.MaxInt64
	if !f.deadline.IsZero() {
		most = time.Until(f.deadline)
	}

	switch {
	case most <= 0:
		return 0, nil, 0, os.ErrDeadlineExceeded
	case len(f.bytes) > 0:
		n = copy(p, f.bytes)
		f.bytes = f.bytes[n:]
		return n, nil, 0, nil
	case f.ended:
		return 0, nil, 0, io.EOF
	}

	return 0, f.changed, most, nil
}

// pipe is an end of a connection in memory that keeps written bytes until they are read, as a
// socket does. Unlike a socket, it uses the time of synctest.
type pipe struct{ in, out *flow }

func newPipe() (client, server *pipe) {
	there, back := newFlow(), newFlow()
	return &pipe{back, there}, &pipe{there, back}
}

func (p *pipe) Read(b []byte) (int, error) {
	for {
		n, changed, most, err := p.in.read(b)
		if changed == nil {
			return n, err
		}

		wait := time.NewTimer(most)
		select {
		case <-changed:
		case <-wait.C:
		}

		wait.Stop()
	}
}

func (p *pipe) Write(b []byte) (n int, err error) {
	p.out.change(func() {
		if p.out.ended {
			err = net.ErrClosed
			return
		}
		p.out.bytes = append(p.out.bytes, b...)
		n = len(b)
	})

	return n, err
}

func (p *pipe) Close() error {
	for _, f := range []*flow{p.in, p.out} {
		f.change(func() { f.ended = true })
	}
	return nil
}

func (p *pipe) SetReadDeadline(at time.Time) error {
	p.in.change(func() { p.in.deadline = at })
	return nil
}

func (p *pipe) SetDeadline(at time.Time) error { return p.SetReadDeadline(at) } // no write waits

func (p *pipe) SetWriteDeadline(time.Time) error { return nil }

func (p *pipe) LocalAddr() net.Addr { return &net.TCPAddr{} }

func (p *pipe) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// descriptor stands for a pipe's descriptor, of which it has none.
type descriptor struct{}

func (descriptor) Control(f func(uintptr)) error   { f(0); return nil }
func (descriptor) Read(f func(uintptr) bool) error { f(0); return nil }
func (descriptor) Write(func(uintptr) bool) error  { return nil }

// newPipeConn returns a connection over a pipe. Its peek works as that of a socket.
func newPipeConn(p *pipe) *conn {
	c := &conn{Conn: p, tcp: p, raw: descriptor{}, madeAt: time.Now(), idleSince: time.Now()}
	c.in = bufio.NewReaderSize(c, 16<<10)
	c.peek = func(uintptr) bool {
		n, changed, _, err := p.in.read(c.peeked[:])
		c.peekedLen, c.peekErr = n, nil
		if changed != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			c.peekErr = syscall.EAGAIN
		}
		return true
	}

	return c
}

// listenInBubble returns a client whose connections, in memory and in synctest's time, are each
// served by a function and then closed. made is the time that it takes to connect, there the
// time until the server sees the connection.
func listenInBubble(t *testing.T, made, there time.Duration, serve func(c net.Conn, in *bufio.Reader)) *Client {
	t.Helper()

	client := connect(t, "http://127.0.0.1:1")

	var served sync.WaitGroup
	client.openConn = func(context.Context) (*conn, error) {
		time.Sleep(made)
		client, server := newPipe()
		served.Go(func() {
			defer server.Close()
			time.Sleep(there)
			serve(server, bufio.NewReader(server))
		})

		return newPipeConn(client), nil
	}

	t.Cleanup(func() {
		client.Close()
		served.Wait()
	})

	return client
}
