// Package natsserver runs the NATS server inside promptmill: the bus of a run that has none, and
// the one of promptmill serve.
//
// [Start] checks the store, starts the server with promptmill's accounts, connects to it and
// recovers its streams: a server that would start without some of them does not start.
// [Server.Watch] reports a store that fails later.
package natsserver

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// MaxPayload is the largest message that the server takes, in bytes.
const MaxPayload = 16 << 20

// DefaultPort is the usual port of a bus that stays up. It avoids NATS's 4222.
const DefaultPort = 4333

// maxPending is the most bytes that the server keeps for a slow client before it drops the client.
const maxPending = 256 << 20

// startTimeout is the time limit of the start.
const startTimeout = 60 * time.Second

// Sizes of the streams of a bus for one run, in bytes. The collector keeps up, so results need
// little.
const (
	MaxWorkBytes    = 1 << 30
	MaxResultsBytes = 128 << 20
)

// Loopback is the default listen address: any port, for this machine alone.
var Loopback = ListenAddress{Address: "127.0.0.1:0"}

// ListenAddress is the address of a server for itself and for other machines.
type ListenAddress struct {
	// Address is HOST:PORT. Port 0 is any.
	Address string
	// Advertise is the HOST or HOST:PORT for other machines. Defaults to the addresses of this
	// machine.
	Advertise string
}

// Config configures a server.
type Config struct {
	// State is the state folder, which has the identity of this machine. Required.
	State string
	// Dir is the folder in State for the server's store and its bus file. Required.
	Dir string
	// Listen is the address of the server. Defaults to [Loopback].
	Listen ListenAddress
	// Shared sizes the streams for many runs instead of one.
	Shared bool
	// Log gets the server's log. Defaults to none.
	Log zerolog.Logger
}

// Server is an embedded NATS server with a connection to it.
type Server struct {
	*busconn.Connection

	server   *server.Server
	store    string // folder
	file     string // the bus file
	identity *localbus.Identity
	listen   ListenAddress
	door     *doorkeeper
	stop     context.CancelFunc // ends its watch
	watching sync.WaitGroup
}

// Start starts a server. It refuses a store that it cannot read or write as a whole, and one
// whose streams it cannot recover.
func Start(cfg Config) (*Server, error) {
	if cfg.Listen.Address == "" {
		cfg.Listen.Address = Loopback.Address
	}

	store, err := openStore(cfg)
	if err != nil {
		return nil, err
	}

	id, err := localbus.LoadIdentity(cfg.State)
	if err != nil {
		return nil, err
	}

	owner := rand.Text()
	s, door, err := newServer(cfg, store, id, owner)
	if err != nil {
		return nil, err
	}

	b := &Server{
		server:   s,
		store:    store.dir,
		file:     filepath.Join(cfg.Dir, localbus.FileName),
		identity: id,
		listen:   cfg.Listen,
		door:     door,
	}
	b.watchDoor()
	if err := b.open(cfg, owner, store); err != nil {
		b.Stop()
		return nil, err
	}

	return b, nil
}

// newServer returns a server that has not started, and the doorkeeper who lets its clients in.
func newServer(
	cfg Config, store storeFolder, id *localbus.Identity, owner string,
) (*server.Server, *doorkeeper, error) {
	opts, err := serverOptions(cfg, store, id)
	if err != nil {
		return nil, nil, err
	}

	if err := addAccounts(opts, id, owner); err != nil {
		return nil, nil, fmt.Errorf("start the bus: %w", err)
	}

	door, err := newDoorkeeper(cfg, id, opts)
	if err != nil {
		return nil, nil, exit.WithHint(err, localbus.JoinFileHint)
	}

	s, err := server.NewServer(opts)
	if err == nil {
		err = door.serve(s)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("start the bus: %w", err)
	}

	return s, door, nil
}

// watchDoor has the doorkeeper end the connections of join strings that end, until the server stops.
func (b *Server) watchDoor() {
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.watching.Go(func() { b.door.watch(ctx) })
}

// serverOptions returns the options of the server, without its accounts.
func serverOptions(cfg Config, store storeFolder, id *localbus.Identity) (*server.Options, error) {
	address := cfg.Listen.Address
	host, port, err := ParseAddress(address)
	if err != nil {
		return nil, exit.Usage(ExampleAddress(address), "--listen %s: %w", address, err)
	}

	if err := CheckListen(address, cfg.State); err != nil {
		return nil, err
	}

	secure := &tls.Config{Certificates: []tls.Certificate{id.Certificate}, MinVersion: tls.VersionTLS13}
	if takesOnlyIPv4(address) {
		secure.GetConfigForClient = refuseIPv6
	}

	return &server.Options{
		ServerName: serverName,
		Host:       host,
		Port:       port,
		NoSigs:     true,
		TLSConfig:  secure,
		TLSTimeout: 10, // seconds: a busy box at the other end of the world
		JetStream:  true,
		StoreDir:   store.dir,
		// The limits of the streams hold first. A full disk would freeze a stream until the
		// server restarts.
		JetStreamMaxStore:  store.room * 9 / 10,
		JetStreamMaxMemory: 64 << 20, // for short-lived consumers; streams are files
		// A power cut may lose the messages of this last interval; their requests run again.
		SyncInterval: time.Second,
		MaxPayload:   MaxPayload,
		MaxPending:   maxPending,
		PingInterval: 20 * time.Second, // an unplugged box is gone within a minute
	}, nil
}

// addAccounts adds promptmill's accounts with the passwords of the roles, and of the owner.
func addAccounts(opts *server.Options, id *localbus.Identity, owner string) error {
	var accounts strings.Builder
	err := proto.WriteAccounts(&accounts, func(user string) string {
		if user == proto.Owner {
			return strconv.Quote(owner)
		}
		return strconv.Quote(id.Join(proto.Role(user), nil).Password())
	})
	if err != nil {
		return err
	}

	return opts.ProcessConfigString(accounts.String())
}

// open starts the server, connects to it, recovers its streams and writes the bus file.
func (b *Server) open(cfg Config, owner string, store storeFolder) error {
	startup := newStartupLog()
	b.server.SetLoggerV2(serverLog{cfg.Log.With().Str("part", "nats").Logger(), startup}, false, false, false)

	go b.server.Start()

	if err := b.awaitReady(startup); err != nil {
		return err
	}

	if !b.server.JetStreamEnabled() {
		return fmt.Errorf("start the bus: JetStream cannot use its store %s (is the disk full?)", b.store)
	}

	var err error
	b.Connection, err = busconn.Dial("", cfg.Log, nats.InProcessServer(b.server), nats.UserInfo(proto.Owner, owner))
	if err != nil {
		return fmt.Errorf("start the bus: %w", err)
	}

	b.Limits = streamLimits(store.room, cfg.Shared)

	if err := b.recoverStreams(context.Background(), store.streams, startup, cfg.Log); err != nil {
		return fmt.Errorf("start the bus: %w", err)
	}

	if err := b.record().Write(b.file); err != nil {
		return fmt.Errorf("start the bus: %w", err)
	}

	return nil
}

// streamLimits returns the sizes of the streams in a store of some bytes.
func streamLimits(room int64, shared bool) bus.Limits {
	if shared { // a disk should hold twenty runs
		most := min(busconn.SharedStreamBytes, room/40)
		return bus.Limits{WorkBytes: most, ResultsBytes: most}
	}
	return bus.Limits{WorkBytes: min(MaxWorkBytes, room/4), ResultsBytes: min(MaxResultsBytes, room/4)}
}

// awaitReady waits until the server takes connections or has given up.
func (b *Server) awaitReady(startup *startupLog) error {
	for end := time.Now().Add(startTimeout); time.Now().Before(end); {
		if b.server.ReadyForConnections(100 * time.Millisecond) {
			return nil
		}

		select {
		case why := <-startup.fatal:
			return storeError(b.store, errors.New(why))
		default:
		}
	}

	return fmt.Errorf("start the bus: not ready after %s", startTimeout)
}

// record returns the content of the bus file.
func (b *Server) record() localbus.Bus {
	return localbus.Bus{PID: os.Getpid(), Listen: b.Addr(), Advertise: b.listen.Advertise}
}

// Addr returns the IP:PORT at which the server listens. The IP is 0.0.0.0 for each IPv4 address of
// this machine, and :: for each address.
func (b *Server) Addr() string {
	address := b.server.Addr().(*net.TCPAddr)
	if takesOnlyIPv4(b.listen.Address) {
		return net.JoinHostPort("0.0.0.0", strconv.Itoa(address.Port))
	}
	return address.String()
}

// JoinString returns the join string for a role. Other machines can use it if the server is
// [Server.Reachable].
func (b *Server) JoinString(role proto.Role) string {
	return b.identity.Join(role, b.record().JoinAddresses()).String()
}

// Reachable reports whether other machines may reach the server: it listens to them, and this
// machine has an address for them.
func (b *Server) Reachable() bool { return len(b.record().Addresses()) > 0 }

// Local reports whether the server listens to this machine alone.
func (b *Server) Local() bool { return b.server.Addr().(*net.TCPAddr).IP.IsLoopback() }

// OpenAddress returns the address to listen at for the same server to be open to other machines.
func (b *Server) OpenAddress() string {
	port := DefaultPort
	if _, said, err := ParseAddress(b.listen.Address); err == nil && said > 0 {
		port = said
	}
	return net.JoinHostPort("0.0.0.0", strconv.Itoa(port))
}

// ParseAddress parses HOST:PORT. The port is negative if it may be any.
func ParseAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	switch {
	case err != nil && strings.Count(address, ":") > 1 && !strings.HasPrefix(address, "["):
		return "", 0, errors.New("an IPv6 address is written in brackets, as in [::]:4333")
	case err != nil:
		if _, err := strconv.ParseUint(address, 10, 16); err == nil {
			return "", 0, errors.New("it has no host")
		}
		return "", 0, errors.New("it has no port")
	}

	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is not a number from 0 to 65535", text)
	}

	if n == 0 {
		return host, server.RANDOM_PORT, nil
	}

	return host, int(n), nil
}

// ExampleAddress returns the hint for an address that [ParseAddress] refuses. It has the port,
// if the address is a port alone.
func ExampleAddress(address string) string {
	port, err := strconv.ParseUint(address, 10, 16)
	if err != nil {
		port = DefaultPort
	}
	return fmt.Sprintf("for example --listen 0.0.0.0:%d", port)
}

// Stop ends the server and waits until its store is closed.
func (b *Server) Stop() {
	os.Remove(b.file)
	b.stop()
	b.watching.Wait()
	if b.Connection != nil {
		b.Conn.Close()
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// ErrStore is returned by [Server.Watch] when the server cannot store messages any more.
var ErrStore = errors.New("the bus cannot write its store")

// Watch returns an error that wraps [ErrStore] when the server has lost its store or its disk is
// full: its streams take no messages then until the server restarts. It returns the cause when
// ctx ends.
func (b *Server) Watch(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()

	for bad := 0; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}

		if _, err := os.Stat(filepath.Join(b.store, "jetstream")); err != nil {
			return fmt.Errorf("%w: %w", ErrStore, err)
		}

		h := b.server.Healthz(&server.HealthzOptions{})
		if h.Error == "" {
			bad = 0
		} else if bad++; bad == 3 { // a stream that is being created or deleted fails a check or two
			return fmt.Errorf("%w: %s", ErrStore, h.Error)
		}
	}
}

// AwaitReaders waits until no reader of results is connected, so that readers get the last ones.
func (b *Server) AwaitReaders(most time.Duration) {
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		reading := false
		if conns, err := b.server.Connz(&server.ConnzOptions{}); err == nil {
			for _, c := range conns.Conns {
				reading = reading || c.Name == busconn.ReaderName
			}
		}

		if !reading {
			return
		}
	}
}
