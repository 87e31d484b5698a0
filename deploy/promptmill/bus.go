package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// bus is an embedded NATS server.
type embeddedBus struct {
	*link
	server   *server.Server
	dir      string // of the store
	file     string // where other processes of this machine find the way in
	identity *identity
	listen   listenAt
}

// listenAt is where a bus listens and what others call that place.
type listenAt struct {
	address   string // HOST:PORT
	advertise string // HOST or HOST:PORT, or empty for the addresses of this machine
}

// loopback is where a bus listens that was not told to.
var loopback = listenAt{address: "127.0.0.1:0"}

const (
	maxPayload   = 16 << 20
	startTimeout = 60 * time.Second
	// Of a bus for one run. The collector keeps up, so results need little.
	maxWork    = 1 << 30
	maxResults = 128 << 20
	// Of each run on a bus for many: the server sets these aside, used or not. Results
	// are the slack of those who read them.
	maxShared = 512 << 20
)

// startBus starts a server with its store in dir/nats. dir/bus.json says where it
// listens.
func startBus(state, dir string, listen listenAt, shared bool, log zerolog.Logger) (*embeddedBus, error) {
	store := filepath.Join(dir, "nats")
	if err := statedir.Make(state, store); err != nil {
		return nil, err
	}

	if err := moveStore(store); err != nil {
		return nil, err
	}

	streams, err := storedStreams(store)
	if err != nil {
		return nil, err
	}

	room, err := roomFor(store)
	if err != nil {
		return nil, err
	}

	id, err := loadIdentity(state)
	if err != nil {
		return nil, err
	}

	host, port, err := splitAddress(listen.address)
	if err != nil {
		return nil, exit.Usage("for example --listen 0.0.0.0:4333", "--listen %s: %w", listen.address, err)
	}

	if port > 0 { // the server itself only says that it does not get ready
		l, err := net.Listen("tcp", listen.address)
		if err != nil {
			return nil, exit.WithHint(fmt.Errorf("start the bus: %w", err),
				"choose another port with --listen HOST:PORT")
		}
		l.Close()
	}

	opts := &server.Options{
		ServerName: "promptmill",
		Host:       host,
		Port:       port,
		NoSigs:     true,
		TLSConfig:  &tls.Config{Certificates: []tls.Certificate{id.cert}, MinVersion: tls.VersionTLS13},
		TLSTimeout: 10, // seconds: a busy box at the other end of the world
		JetStream:  true,
		StoreDir:   store,
		// The streams' own limits hold first; a full disk would freeze a stream until
		// the server restarts.
		JetStreamMaxStore:  room * 9 / 10,
		JetStreamMaxMemory: 64 << 20, // for short-lived consumers; streams are files
		// A power cut may take what was stored within this time; it is run again.
		SyncInterval: time.Second,
		MaxPayload:   maxPayload,
		MaxPending:   256 << 20,
		PingInterval: 20 * time.Second, // a box that was unplugged is forgotten within a minute
	}

	owner := rand.Text()
	var accounts strings.Builder
	err = proto.WriteAccounts(&accounts, func(user string) string {
		if user == proto.Owner {
			return strconv.Quote(owner)
		}
		return strconv.Quote(id.join(proto.Role(user), nil).Password())
	})
	if err == nil {
		err = opts.ProcessConfigString(accounts.String())
	}

	var s *server.Server
	if err == nil {
		s, err = server.NewServer(opts)
	}
	if err != nil {
		return nil, fmt.Errorf("start the bus: %w", err)
	}

	said := newServerWords()
	s.SetLoggerV2(serverLog{log.With().Str("part", "nats").Logger(), said}, false, false, false)

	go s.Start()

	b := &embeddedBus{
		server:   s,
		dir:      store,
		file:     filepath.Join(dir, busFile),
		identity: id,
		listen:   listen,
	}
	if err := b.awaitReady(said); err != nil {
		b.stop()
		return nil, err
	}

	if !s.JetStreamEnabled() {
		b.stop()
		return nil, fmt.Errorf("start the bus: JetStream cannot use its store %s (is the disk full?)", store)
	}

	b.link, err = dial("", log, nats.InProcessServer(s), nats.UserInfo(proto.Owner, owner))
	if err == nil {
		b.limits = bus.Limits{WorkBytes: min(maxWork, room/4), ResultsBytes: min(maxResults, room/4)}
		if shared { // a disk should hold twenty runs
			b.limits = bus.Limits{WorkBytes: min(maxShared, room/40), ResultsBytes: min(maxShared, room/40)}
		}
		err = b.recoverStreams(context.Background(), streams, said, log)
	}
	if err == nil {
		err = b.tellOthers()
	}
	if err != nil {
		b.stop()
		return nil, fmt.Errorf("start the bus: %w", err)
	}

	return b, nil
}

// awaitReady waits until the server takes connections, or has given up.
func (b *embeddedBus) awaitReady(said *serverWords) error {
	for end := time.Now().Add(startTimeout); time.Now().Before(end); {
		if b.server.ReadyForConnections(100 * time.Millisecond) {
			return nil
		}

		select {
		case why := <-said.fatal:
			return errStore(b.dir, errors.New(why))
		default:
		}
	}

	return fmt.Errorf("start the bus: not ready after %s", startTimeout)
}

// moveStore gives the streams of an earlier version to the account that has them now: the
// server looks for them in a folder of the account's name.
func moveStore(store string) error {
	from, to := filepath.Join(store, "jetstream", "$G"), filepath.Join(store, "jetstream", proto.OwnerAccount)
	if !files.Exists(from) || files.Exists(to) {
		return nil
	}

	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("take over the bus's store of an earlier version: %w", err)
	}

	return nil
}

// busFile is the file in which a bus leaves the way in.
const busFile = "bus.json"

// localBus is what the file of a running bus says. The secrets are in the identity.
type localBus struct {
	PID       int    `json:"pid"`
	Listen    string `json:"listen"` // HOST:PORT
	Advertise string `json:"advertise,omitempty"`
}

// tellOthers leaves the address for other processes of this machine.
func (b *embeddedBus) tellOthers() error {
	data, err := json.Marshal(localBus{os.Getpid(), b.server.Addr().String(), b.listen.advertise})
	if err != nil {
		return err
	}
	return os.WriteFile(b.file, data, 0o600)
}

// here is the address for processes of this machine.
func (b localBus) here() string {
	host, port, _ := net.SplitHostPort(b.Listen)
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// join is the way in for a role, from other machines if the bus listens to them.
func (b *embeddedBus) join(role proto.Role) string {
	return b.identity.join(role, b.addresses()).String()
}

// addresses is what to call the bus by.
func (b *embeddedBus) addresses() []string {
	_, port, _ := net.SplitHostPort(b.server.Addr().String())
	host, _, _ := splitAddress(b.listen.address)
	return addressesOf(net.JoinHostPort(host, port), b.listen.advertise)
}

// addressesOf is what to call a bus by that listens at an address.
func addressesOf(listen, advertise string) []string {
	host, port, _ := net.SplitHostPort(listen)
	if advertise != "" {
		if _, _, err := net.SplitHostPort(advertise); err == nil {
			return []string{advertise}
		}
		return []string{net.JoinHostPort(advertise, port)}
	}

	if ip := net.ParseIP(host); host != "" && !ip.IsUnspecified() {
		return []string{listen}
	}

	var list []string
	for _, ip := range machineAddresses() {
		list = append(list, net.JoinHostPort(ip, port))
	}

	return append(list, net.JoinHostPort("127.0.0.1", port))
}

// machineAddresses are the addresses that other machines may know this one by.
func machineAddresses() (list []string) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}

	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && len(list) < 4 { // 4: a join string is to be pasted
			list = append(list, n.IP.String())
		}
	}

	return list
}

// splitAddress splits HOST:PORT. Port 0 means any.
func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
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

// stop ends the server and waits until its store is closed.
func (b *embeddedBus) stop() {
	os.Remove(b.file)
	if b.link != nil {
		b.conn.Close()
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// errBusStore is the cause of a run's end when the bus cannot store any more.
var errBusStore = errors.New("the bus cannot write its store")

// watch returns an error when the bus has lost its store or its disk is full: then a
// stream takes nothing any more until the server is started again.
func (b *embeddedBus) watch(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()

	for bad := 0; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}

		if _, err := os.Stat(filepath.Join(b.dir, "jetstream")); err != nil {
			return fmt.Errorf("%w: %w", errBusStore, err)
		}

		h := b.server.Healthz(&server.HealthzOptions{})
		if h.Error == "" {
			bad = 0
		} else if bad++; bad == 3 { // a stream that is being deleted or made is no illness
			return fmt.Errorf("%w: %s", errBusStore, h.Error)
		}
	}
}

// awaitReaders gives those who read results time to read the last ones.
func (b *embeddedBus) awaitReaders(most time.Duration) {
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		reading := false
		if conns, err := b.server.Connz(&server.ConnzOptions{}); err == nil {
			for _, c := range conns.Conns {
				reading = reading || c.Name == readerName
			}
		}

		if !reading {
			return
		}
	}
}

// roomFor is how many bytes the store in dir may have: what is free on its disk, and
// what it has already.
func roomFor(dir string) (int64, error) {
	room, err := freeBytes(dir)
	if err != nil {
		return 0, err
	}

	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}

		info, err := d.Info()
		if err == nil {
			room += info.Size()
		}

		return err
	})
	if err != nil {
		return 0, fmt.Errorf("look at the bus's store: %w", err)
	}

	if room < 1<<20 {
		return 0, exit.WithHint(fmt.Errorf("the disk of %s is full: %d bytes are free", dir, room),
			"free some space, or choose another disk with --state DIR")
	}

	return room, nil
}

// freeBytes is what is free for us on the disk of dir.
func freeBytes(dir string) (int64, error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	return int64(disk.Bavail) * int64(disk.Bsize), nil //nolint:unconvert // it is a uint32 on macOS
}

// serverLog passes what the server says to our log. Its errors are no more than
// information there: what they mean for a run is seen, and said, by who uses the bus.
type serverLog struct {
	zerolog.Logger
	said *serverWords
}

func (l serverLog) Noticef(format string, v ...any) { l.Debug().Msgf(format, v...) }

func (l serverLog) Warnf(format string, v ...any) {
	l.said.add(fmt.Sprintf(format, v...))
	l.Info().Msgf(format, v...)
}

func (l serverLog) Errorf(format string, v ...any) {
	l.said.add(fmt.Sprintf(format, v...))
	l.Info().Msgf(format, v...)
}

func (l serverLog) Fatalf(format string, v ...any) {
	l.said.gaveUp(fmt.Sprintf(format, v...))
	l.Info().Msgf(format, v...)
}

func (l serverLog) Debugf(format string, v ...any) { l.Trace().Msgf(format, v...) }
func (l serverLog) Tracef(format string, v ...any) { l.Trace().Msgf(format, v...) }
