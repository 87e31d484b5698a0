package httpserver

import (
	"net"
	"net/http"
	"sync"
	"syscall"
)

// mostConnections is the most connections that a server takes on its own.
const mostConnections = 10_000

// defaultConnections returns the most connections of a server in this process: half of the files
// that it may open. The bus, the journals and the files of requests need the others.
func defaultConnections() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur/2 > mostConnections {
		return mostConnections
	}
	return max(1, int(files.Cur/2))
}

// limitedListener accepts a connection when fewer than the most are open. Others wait in the queue
// of the system, which is better for them than an error.
type limitedListener struct {
	net.Listener

	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

// limitConnections limits the connections of a listener.
func limitConnections(listener net.Listener, most int) *limitedListener {
	return &limitedListener{Listener: listener, slots: make(chan struct{}, most), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}

	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
	}

	return conn, err
}

// countState is for the ConnState of http.Server: the end of a connection makes room for another. A
// connection that is wrapped instead would lose sendfile.
func (l *limitedListener) countState(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		<-l.slots
	}
}

// Close implements net.Listener.
func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
