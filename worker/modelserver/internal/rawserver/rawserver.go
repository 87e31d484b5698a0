// Package rawserver starts servers that answer in bytes, for tests of HTTP clients.
package rawserver

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Start starts a server that serves each connection with a function, and then closes it. It
// returns the server's URL. The server ends with the test; a client that the test closes in a
// cleanup of its own, registered later, is closed before.
func Start(t testing.TB, serve func(c *net.TCPConn, in *bufio.Reader)) (url string) {
	t.Helper()

	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}

	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}

			served.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(30 * time.Second))
				serve(c, bufio.NewReader(c))
			})
		}
	})

	t.Cleanup(func() {
		l.Close()
		served.Wait()
	})

	return "http://" + l.Addr().String()
}

// ReadRequest reads a request and returns its body, or false at the end.
func ReadRequest(in *bufio.Reader) ([]byte, bool) {
	req, err := http.ReadRequest(in)
	if err != nil {
		return nil, false
	}
	body, err := io.ReadAll(req.Body)
	return body, err == nil
}
