package modelservers

import (
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/promptmill/promptmill/worker/sim"
)

// SimServer is a simulated model server that listens.
type SimServer struct {
	// URL is the address at which it answers.
	URL string

	http    *http.Server
	serving sync.WaitGroup
}

// StartSim has a simulated model server listen at HOST:PORT. Port 0 means any.
func StartSim(address string, server *sim.Server) (*SimServer, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("start the simulated model server: %w", err)
	}

	s := &SimServer{URL: "http://" + listener.Addr().String(), http: &http.Server{Handler: server}}
	s.serving.Go(func() { s.http.Serve(listener) }) // ends with an error when it is closed

	return s, nil
}

// Stop ends the server, with all requests that it runs.
func (s *SimServer) Stop() {
	s.http.Close()
	s.serving.Wait()
}
