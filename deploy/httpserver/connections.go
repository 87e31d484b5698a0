package httpserver

import (
	"container/list"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/files"
)

// mostConnections is the most connections that a server takes on its own.
const mostConnections = 10_000

// defaultConnections returns the most connections of a server in this process: half of the files
// that it may open. The bus, the journals and the files of requests need the others.
func defaultConnections() int {
	most, err := files.MostOpen()
	if err != nil || most == 0 || most/2 > mostConnections {
		return mostConnections
	}
	return max(1, int(most/2))
}

// limitedListener accepts a connection when fewer than the most are open. At the limit, a new one takes the
// place of the one that has been idle for longest; without an idle one, it waits, which is better for a
// client than an error.
type limitedListener struct {
	net.Listener

	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
	// log gets a warning when the limit is reached, one an hour.
	log zerolog.Logger

	// mu guards the fields below.
	mu sync.Mutex
	// idle are the connections between two requests, those that are idle for longest first.
	idle *list.List
	// places are the elements of idle.
	places map[net.Conn]*list.Element
	// waiting reports that a new connection waits for the next one to become idle.
	waiting bool
}

// limitConnections limits the connections of a listener.
func limitConnections(listener net.Listener, most int, log zerolog.Logger) *limitedListener {
	return &limitedListener{
		Listener: listener,
		slots:    make(chan struct{}, most),
		closed:   make(chan struct{}),
		log:      log.Sample(&zerolog.BurstSampler{Burst: 1, Period: time.Hour}),
		idle:     list.New(),
		places:   map[net.Conn]*list.Element{},
	}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}

	select {
	case l.slots <- struct{}{}:
		return conn, nil
	default:
	}

	l.log.Warn().Int("connections", cap(l.slots)).Msg("reached the limit of connections; idle ones are closed for new ones")
	l.closeIdle()

	select {
	case l.slots <- struct{}{}:
		l.stopWaiting()
		return conn, nil
	case <-l.closed:
		conn.Close()
		return nil, net.ErrClosed
	}
}

// closeIdle closes the connection that has been idle for longest, or the next that becomes idle.
func (l *limitedListener) closeIdle() {
	l.mu.Lock()
	oldest := l.idle.Front()
	l.waiting = oldest == nil
	l.mu.Unlock()

	if oldest != nil {
		oldest.Value.(net.Conn).Close() // its end, which countState sees, makes the room
	}
}

// stopWaiting notes that the new connection has its place.
func (l *limitedListener) stopWaiting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = false
}

// countState is for the ConnState of http.Server: the end of a connection makes room for another. A
// connection that is wrapped instead would lose sendfile.
func (l *limitedListener) countState(conn net.Conn, state http.ConnState) {
	if l.noteIdle(conn, state == http.StateIdle) {
		conn.Close()
	}
	if state == http.StateClosed || state == http.StateHijacked {
		<-l.slots
	}
}

// noteIdle notes whether a connection is idle, and reports whether another one waits for its place.
func (l *limitedListener) noteIdle(conn net.Conn, idle bool) (wanted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if place, known := l.places[conn]; known {
		l.idle.Remove(place)
		delete(l.places, conn)
	}
	if !idle {
		return false
	}

	l.places[conn] = l.idle.PushBack(conn)
	wanted, l.waiting = l.waiting, false

	return wanted
}

// Close implements net.Listener.
func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
