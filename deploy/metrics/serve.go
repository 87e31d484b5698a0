package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/scale"
)

// Serve serves the metrics at [HOST]:PORT, beside them the boxes that are wanted and the health of the process, until
// stop is called.
// Without a host, only this machine can read them. Without an address, nothing is served.
func Serve(address string, e *Exporter) (stop func(), err error) {
	if address == "" {
		return func() {}, nil
	}

	listener, err := listen(address)
	if err != nil {
		return nil, err
	}

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", Handler(e))
	mux.Handle("GET "+scale.Path, ScaleHandler(e))
	mux.HandleFunc("GET /healthz", serveHealth)
	mux.HandleFunc("GET /readyz", e.serveReadiness)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) }) // ends with an error when it is closed

	return func() {
		server.Close()
		serving.Wait()
	}, nil
}

// Handler serves the metrics of an exporter and of more collectors.
func Handler(e *Exporter, more ...prometheus.Collector) http.Handler {
	return promhttp.HandlerFor(NewRegistry(e, more...), promhttp.HandlerOpts{})
}

// NewRegistry returns a registry of the metrics of an exporter, of more collectors, of Go's runtime and of the
// process.
func NewRegistry(e *Exporter, more ...prometheus.Collector) *prometheus.Registry {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collectors.NewGoCollector())
	registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if e != nil {
		registry.MustRegister(e)
	}
	registry.MustRegister(more...)

	return registry
}

// listen listens at [HOST]:PORT.
func listen(address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, exit.Usage("for example --metrics :9464", "--metrics %s: it has no port", address)
	}

	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return nil, exit.Usage("for example --metrics :9464", "--metrics %s: port %q is not a number from 0 to 65535",
			address, port)
	}

	l, err := net.Listen("tcp", net.JoinHostPort(cmp.Or(host, "127.0.0.1"), port))
	name, _ := errors.AsType[*net.DNSError](err)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, exit.WithHint(fmt.Errorf("cannot serve metrics at %s: another process has this port already", address),
			"choose another port with --metrics [HOST]:PORT")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, exit.Usage("leave the host out, or give 0.0.0.0 to serve at all addresses of this machine",
			"--metrics %s: this machine has no address %s", address, host)
	case errors.Is(err, os.ErrPermission):
		return nil, exit.WithHint(fmt.Errorf("cannot serve metrics at %s: this user may not use that port", address),
			"choose a port from 1024 on with --metrics [HOST]:PORT")
	case name != nil:
		return nil, exit.Usage("leave the host out, or give 0.0.0.0 to serve at all addresses of this machine",
			"--metrics %s: no address has the name %s", address, name.Name)
	}

	return nil, exit.WithHint(fmt.Errorf("cannot serve metrics at %s: %w", address, err),
		"choose another address with --metrics [HOST]:PORT")
}
