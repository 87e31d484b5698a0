package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/proto"
)

// link is a connection to a bus.
type link struct {
	conn   *nats.Conn
	js     jetstream.JetStream
	limits proto.Limits // of the streams of runs that are made over it
	name   string       // for people
}

func (l *link) close() { l.conn.Close() }

// readerName is what connections that read results are called.
const readerName = "promptmill reader"

// dial connects to a bus and stays connected, whatever happens to it.
func dial(url string, log zerolog.Logger, opts ...nats.Option) (*link, error) {
	var said string // of the connection's one goroutine that reconnects
	opts = append([]nats.Option{
		nats.Name("promptmill"), nats.MaxReconnects(-1), nats.ReconnectWait(500 * time.Millisecond), nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		nats.Timeout(5 * time.Second), nats.PingInterval(10 * time.Second), nats.DontRandomize(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn().Err(err).Msg("bus") }),
		nats.DisconnectErrHandler(func(c *nats.Conn, err error) {
			if !c.IsClosed() {
				log.Warn().AnErr("cause", err).Msg("the bus is away; trying to reach it again")
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { log.Warn().Msg("the bus is back") }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if text := err.Error(); text != said { // each reason once
				said = text
				log.Warn().Err(err).Msg("the bus cannot be reached; trying on")
			}
		}),
	}, opts...)
	conn, err := nats.Connect(url, opts...)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncTimeout(30*time.Second))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &link{conn: conn, js: js, limits: proto.Limits{WorkBytes: maxShared, ResultsBytes: maxShared}, name: conn.ConnectedAddr()}, nil
}

// busFlags say how to reach a bus.
func busFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "join", Usage: "the string that promptmill serve or run --listen has printed", Sources: flagEnv("join")},
		&cli.StringFlag{Name: "nats", Usage: "`URL` of a NATS server, or several with commas", Sources: variables("PROMPTMILL_NATS", "NATS_URL")},
		&cli.StringFlag{Name: "nats-creds", Usage: "credentials `FILE` for it", Sources: variables("PROMPTMILL_NATS_CREDS", "NATS_CREDS")},
		&cli.StringFlag{Name: "nats-user", Usage: "`USER` for it; the password is better given as NATS_PASSWORD than as USER:PASSWORD", Sources: variables("PROMPTMILL_NATS_USER", "NATS_USER")},
		&cli.StringFlag{Name: "tls-ca", Usage: "`FILE` with the certificates to trust for the bus; --model-ca is for model servers", Sources: flagEnv("tls-ca")},
		&cli.StringFlag{Name: "tls-cert", Usage: "client certificate `FILE`", Sources: flagEnv("tls-cert")},
		&cli.StringFlag{Name: "tls-key", Usage: "its key `FILE`; by default that of the certificate", Sources: flagEnv("tls-key")},
		stateFlag(),
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "say more", Sources: flagEnv("verbose")},
	}
}

// stateFlag is that of all commands that keep or look for something on this machine.
func stateFlag() cli.Flag {
	return &cli.StringFlag{Name: "state", Usage: "folder for state", DefaultText: "$XDG_STATE_HOME/promptmill", Sources: flagEnv("state")}
}

// replicasFlag is for commands that make streams on a bus that is there already.
func replicasFlag() cli.Flag {
	return &cli.IntFlag{Name: "replicas", Value: 1, Usage: "copies of each stream, on a cluster", Sources: flagEnv("replicas")}
}

// stateOf is the state folder of a command.
func stateOf(env environment, c *cli.Command) (string, error) {
	if state := c.String("state"); state != "" {
		return filepath.Abs(state)
	}
	return defaultState(env.getenv)
}

// external reports whether a command names a bus that is there already.
func external(c *cli.Command) bool { return c.String("join") != "" || c.String("nats") != "" }

// collectsOnly reports whether a run's connection to its bus is that of a collector, which
// takes no shards. A user of another name of somebody's own server may do all.
func collectsOnly(c *cli.Command) bool {
	user, _, _ := strings.Cut(c.String("nats-user"), ":")

	return c.String("join") != "" || c.String("nats") != "" && proto.Role(user) == proto.RoleCollector
}

// connect connects to the bus that a command names, as a role, or to the one bus that
// runs on this machine.
func connect(ctx context.Context, env environment, c *cli.Command, role proto.Role, log zerolog.Logger) (*link, error) {
	list, err := connectAll(ctx, env, c, role, log)
	if err != nil {
		return nil, err
	}
	if len(list) == 1 {
		return list[0], nil
	}
	var names []string
	for _, l := range list {
		names = append(names, l.name)
		l.close()
	}
	return nil, usage("choose one: promptmill join prints the join string of each", "%d buses run on this machine: %s", len(list), strings.Join(names, ", "))
}

// connectAll connects to the bus that a command names, or to all that run on this
// machine, at least one.
func connectAll(ctx context.Context, env environment, c *cli.Command, role proto.Role, log zerolog.Logger) ([]*link, error) {
	var opts []nats.Option
	if role == proto.RoleReader {
		opts = append(opts, nats.Name(readerName))
	}
	switch {
	case c.String("join") != "": // before --nats, which NATS_URL may have set for other programs
		j, err := proto.ParseJoin(c.String("join"))
		if err != nil {
			return nil, usage("paste all of it, as promptmill serve or run --listen has printed it", "--join: %w", err)
		}
		if !j.Role.Covers(role) {
			return nil, usage("promptmill join "+string(role)+", on the machine of the bus, prints the right one", "this join string lets in a %s, and %s needs one of a %s", j.Role, c.Name, role)
		}
		l, err := joinBus(j, log, opts...)
		if err != nil {
			return nil, err
		}
		return []*link{l}, nil
	case c.String("nats") != "":
		l, err := connectExternal(env, c, role, log, opts...)
		if err != nil {
			return nil, err
		}
		return []*link{l}, nil
	}
	state, err := stateOf(env, c)
	if err != nil {
		return nil, err
	}
	var list []*link
	for _, b := range localBuses(state) {
		id, err := loadIdentity(state)
		if err != nil {
			return nil, err
		}
		if l, err := joinBus(id.join(role, []string{b.here()}), log, opts...); err == nil {
			list = append(list, l)
		}
	}
	if len(list) == 0 {
		return nil, &failure{exitUnreachable, errors.New("no bus runs on this machine"),
			"start one with promptmill serve or promptmill run, or name one with --join STRING or --nats URL"}
	}
	return list, nil
}

// localBuses are the buses whose files lie in a state folder. Some may be gone.
func localBuses(state string) (list []localBus) {
	files, _ := filepath.Glob(filepath.Join(state, "*", busFile)) // the pattern is good
	for _, file := range files {
		var b localBus
		if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &b) == nil {
			list = append(list, b)
		}
	}
	return list
}

// joinBus connects with a join string: over TLS, to a server with the certificate that
// it names, and no other.
func joinBus(j proto.Join, log zerolog.Logger, opts ...nats.Option) (*link, error) {
	other := false // a server that is not the one answers
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The certificate is pinned below, which is stronger than a chain of trust.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if sum := sha256.Sum256(s.PeerCertificates[0].Raw); !bytes.Equal(sum[:], j.Fingerprint[:]) {
				other = true
				return errors.New("what answers there has another certificate: this join string is old, or of another machine")
			}
			return nil
		},
	}
	urls := make([]string, len(j.Addresses))
	for i, a := range j.Addresses {
		urls[i] = "tls://" + a
	}
	where := strings.Join(j.Addresses, ", ")
	l, err := dial(strings.Join(urls, ","), log, append(opts, nats.Secure(config),
		nats.UserInfo(j.User(), j.Password()), nats.CustomInboxPrefix(j.Role.InboxPrefix()))...)
	switch {
	case err == nil:
		return l, nil
	case other:
		return nil, &failure{exitUnreachable, fmt.Errorf("what answers at %s is not the bus of this join string: it has another certificate", where),
			"the string is old, or of another machine: take the one that promptmill join prints there now"}
	case errors.Is(err, nats.ErrAuthorization):
		return nil, &failure{exitUnreachable, fmt.Errorf("the bus at %s refuses this join string", where),
			"it is old: take the one that promptmill join prints there now"}
	}
	return nil, &failure{exitUnreachable, fmt.Errorf("no bus answers at %s: %w", where, err),
		"is promptmill serve, or run --listen, running there, and does a firewall let this port through?"}
}

// connectExternal connects to a NATS server that is there already.
func connectExternal(env environment, c *cli.Command, role proto.Role, log zerolog.Logger, opts ...nats.Option) (*link, error) {
	// A user called as one of our roles may listen for answers where that role may.
	if user, _, _ := strings.Cut(c.String("nats-user"), ":"); slices.Contains(proto.Roles(), proto.Role(user)) {
		role = proto.Role(user)
	}
	opts = append(opts, nats.CustomInboxPrefix(role.InboxPrefix()))
	if file := c.String("nats-creds"); file != "" {
		if _, err := os.Stat(file); err != nil {
			return nil, usage("", "--nats-creds: %w", err)
		}
		opts = append(opts, nats.UserCredentials(file))
	}
	if user := c.String("nats-user"); user != "" {
		name, password, _ := strings.Cut(user, ":")
		opts = append(opts, nats.UserInfo(name, cmp.Or(password, env.getenv("NATS_PASSWORD"))))
	}
	if file := c.String("tls-ca"); file != "" {
		opts = append(opts, nats.RootCAs(file))
	}
	if file := c.String("tls-cert"); file != "" {
		opts = append(opts, nats.ClientCert(file, cmp.Or(c.String("tls-key"), file)))
	}
	l, err := dial(c.String("nats"), log, opts...)
	switch {
	case err == nil:
	case errors.Is(err, nats.ErrAuthorization):
		return nil, &failure{exitUnreachable, fmt.Errorf("the NATS server at %s refuses these credentials", shown(c.String("nats"))),
			"give --nats-creds FILE, --nats-user USER, or --tls-cert FILE"}
	default:
		if e, ok := errors.AsType[*url.Error](err); ok {
			e.URL = shown(e.URL)
		}
		return nil, &failure{exitUnreachable, fmt.Errorf("connect to the NATS server at %s: %w", shown(c.String("nats")), err), "is it running, and is the URL right?"}
	}
	if n := c.Int("replicas"); n > 0 { // 0 also where the command has no such flag
		l.limits.Replicas = n
	}
	return l, nil
}

// newLog is a command's log: lines for people, or objects among those of --progress json.
func newLog(c *cli.Command, screen *screen) zerolog.Logger {
	level := zerolog.WarnLevel
	if c.Bool("verbose") {
		level = zerolog.DebugLevel
	}
	if screen.mode == "json" {
		return zerolog.New(screen).Level(level).With().Str("type", "log").Timestamp().Logger()
	}
	return zerolog.New(zerolog.ConsoleWriter{Out: screen, NoColor: true, TimeFormat: "15:04:05"}).Level(level).With().Timestamp().Logger()
}
