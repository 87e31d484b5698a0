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
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// link is a connection to a bus.
type link struct {
	conn   *nats.Conn
	js     jetstream.JetStream
	limits bus.Limits // of the streams of runs that are made over it
	name   string     // for people
	away   *absence
}

func (l *link) close() { l.conn.Close() }

// readerName is what connections that read results are called.
const readerName = "promptmill reader"

// finalError is an error of a bus that waiting does not change.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// otherFor is how long nothing but another bus must answer until ours counts as gone.
const otherFor = 30 * time.Second

// sayEvery is how often a bus that stays away is spoken of.
const sayEvery = time.Minute

// reconnectDelay is how long to wait before all addresses are tried once more.
func reconnectDelay(attempts int) time.Duration {
	wait := min(time.Duration(attempts)*500*time.Millisecond, 5*time.Second)
	return wait/2 + time.Duration(rand.Int64N(int64(wait)/2+1))
}

// dial connects to a bus and stays connected, whatever happens to it. It refuses a server
// that is too old.
func dial(url string, log zerolog.Logger, opts ...nats.Option) (*link, error) {
	l := &link{}
	if err := l.dial(url, log, &absence{log: log}, opts...); err != nil {
		return nil, err
	}
	return l, nil
}

// dial connects the link. away is told what comes between.
func (l *link) dial(url string, log zerolog.Logger, away *absence, opts ...nats.Option) error {
	opts = append([]nats.Option{
		nats.Name("promptmill"), nats.MaxReconnects(-1), nats.CustomReconnectDelay(reconnectDelay),
		nats.Timeout(5 * time.Second), nats.DontRandomize(),
		// A node that vanishes without a word is noticed after 8 to 12 s. A thin line may hold
		// up an answer for as long.
		nats.PingInterval(4 * time.Second), nats.MaxPingsOutstanding(2),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn().Err(err).Msg("bus") }),
		nats.DisconnectErrHandler(func(c *nats.Conn, err error) {
			if !c.IsClosed() {
				log.Warn().AnErr("cause", err).Msg("the bus is away; trying to reach it again")
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			log.Warn().Msg("the bus is back")
			away.ended()
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { away.missed(err) }),
	}, opts...)

	conn, err := nats.Connect(url, opts...)
	if err != nil {
		return err
	}

	if err := checkServer(conn.ConnectedServerVersion(), log); err != nil {
		conn.Close()
		return err
	}

	js, err := jetstream.New(conn, jetstream.WithPublishAsyncTimeout(30*time.Second))
	if err != nil {
		conn.Close()
		return err
	}

	away.lose(conn)
	*l = link{
		conn:   conn,
		js:     js,
		away:   away,
		limits: bus.Limits{WorkBytes: maxShared, ResultsBytes: maxShared},
		name:   conn.ConnectedAddr(),
	}

	return nil
}

// absence is a time in which a bus cannot be reached.
type absence struct {
	log zerolog.Logger

	mu    sync.Mutex
	conn  *nats.Conn // that was lost; nil before the first connection
	said  time.Time
	other time.Time // since when nothing but another bus answers
	why   error     // the connection was given up; nil: it was not
}

func (a *absence) lose(conn *nats.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conn = conn
}

func (a *absence) ended() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said, a.other = time.Time{}, time.Time{}
}

// missed notes that nobody answers at an address.
func (a *absence) missed(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.other = time.Time{}
	a.say(err)
}

// met notes that another bus answers. After some time of that ours counts as gone. The
// client does not report what comes after an address has answered, hence this is called
// when the certificate is looked at.
func (a *absence) met(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()

	switch {
	case a.conn == nil: // whoever connects has the error
	case a.other.IsZero():
		a.other = time.Now()
		a.say(err)
	case time.Since(a.other) >= otherFor:
		a.why = err
		go a.conn.Close() // it waits for who is connecting now
	default:
		a.say(err)
	}
}

// say logs why the bus cannot be reached, not too often.
func (a *absence) say(err error) {
	if time.Since(a.said) >= sayEvery {
		a.said = time.Now()
		a.log.Warn().Err(err).Msg("failed to reach the bus; trying on")
	}
}

// givenUp is why the connection was given up, or nil.
func (a *absence) givenUp() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.why
}

// busFlags say how to reach a bus.
func busFlags() []cli.Flag { return busFlagsOf("PROMPTMILL_NATS", "NATS_URL") }

// ownBusFlags are those of the commands that start a bus unless they are told not to.
// NATS_URL, which is there for other programs, does not tell them.
func ownBusFlags() []cli.Flag { return busFlagsOf("PROMPTMILL_NATS") }

// sayOwnBus says that NATS_URL is not used, if it is set.
func sayOwnBus(env environment, o connectOptions, screen *terminal.Screen) {
	if env.getenv("NATS_URL") != "" && !o.External() {
		screen.Printf("NATS_URL is set, but %s uses a bus of its own; give --nats URL to use that one", o.Command)
	}
}

// busFlagsOf are the flags, with the environment variables of the one for a NATS server.
func busFlagsOf(names ...string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:    "join",
			Usage:   "the string that promptmill serve or run --listen has printed",
			Sources: flagEnv("join"),
		},
		&cli.StringFlag{
			Name:    "nats",
			Usage:   "`URL` of a NATS server, or several with commas",
			Sources: variables(names...),
		},
		&cli.StringFlag{
			Name:    "nats-creds",
			Usage:   "credentials `FILE` for it",
			Sources: variables("PROMPTMILL_NATS_CREDS", "NATS_CREDS"),
		},
		&cli.StringFlag{
			Name:    "nats-user",
			Usage:   "`USER` for it; the password is better given as NATS_PASSWORD than as USER:PASSWORD",
			Sources: variables("PROMPTMILL_NATS_USER", "NATS_USER"),
		},
		&cli.StringFlag{
			Name:    "tls-ca",
			Usage:   "`FILE` with the certificates to trust for the bus; --model-ca is for model servers",
			Sources: flagEnv("tls-ca"),
		},
		&cli.StringFlag{Name: "tls-cert", Usage: "client certificate `FILE`", Sources: flagEnv("tls-cert")},
		&cli.StringFlag{
			Name:    "tls-key",
			Usage:   "its key `FILE`; by default that of the certificate",
			Sources: flagEnv("tls-key"),
		},
		stateFlag(),
		&cli.BoolFlag{
			Name:    "verbose",
			Aliases: []string{"v"},
			Usage:   "say more",
			Sources: flagEnv("verbose"),
		},
	}
}

// stateFlag is that of all commands that keep or look for something on this machine.
func stateFlag() cli.Flag {
	return &cli.StringFlag{
		Name:        "state",
		Usage:       "folder for state",
		DefaultText: "$XDG_STATE_HOME/promptmill",
		Sources:     flagEnv("state"),
	}
}

// replicasFlag is for commands that make streams on a bus that is there already.
func replicasFlag() cli.Flag {
	return &cli.IntFlag{
		Name:    "replicas",
		Value:   1,
		Usage:   "copies of each stream, on a cluster",
		Sources: flagEnv("replicas"),
	}
}

// stateOf is the state folder of a command.
func stateOf(env environment, c *cli.Command) (string, error) {
	if state := c.String("state"); state != "" {
		return filepath.Abs(state)
	}
	return statedir.Default(env.getenv)
}

// connectOptions say which bus a command uses, and as whom. Without Join and URL that is the
// one bus that runs on this machine.
type connectOptions struct {
	// Join is a join string. It comes before URL.
	Join string
	// URL is the URL of a NATS server, or several with commas.
	URL string
	// User is a user of that server, or USER:PASSWORD.
	User string
	// Password is the password of User, if User has none.
	Password string
	// Credentials is a file of NATS credentials.
	Credentials string
	// CA is a file of certificates to trust for the server.
	CA string
	// Certificate is the file of the client's certificate.
	Certificate string
	// Key is the file of its key. Defaults to Certificate.
	Key string
	// Replicas is how many copies each stream has that is made on the server. Defaults to 1.
	Replicas int
	// State is the state folder, where the buses of this machine are found. Empty if there is
	// neither a --state nor a home folder.
	State string
	// Command is the name of the command, for errors.
	Command string
}

// parseConnect reads the flags of the bus.
func parseConnect(env environment, c *cli.Command) connectOptions {
	state, _ := stateOf(env, c) // matters only where no bus is named; connectAll has the error then

	return connectOptions{
		Join:        c.String("join"),
		URL:         c.String("nats"),
		User:        c.String("nats-user"),
		Password:    env.getenv("NATS_PASSWORD"),
		Credentials: c.String("nats-creds"),
		CA:          c.String("tls-ca"),
		Certificate: c.String("tls-cert"),
		Key:         c.String("tls-key"),
		Replicas:    c.Int("replicas"), // 0 where the command has no such flag
		State:       state,
		Command:     c.Name,
	}
}

// External reports whether the options name a bus.
func (o connectOptions) External() bool { return o.Join != "" || o.URL != "" }

// CollectsOnly reports whether a run's connection to its bus is that of a collector, which
// takes no shards. A user of another name of a NATS server may do all.
func (o connectOptions) CollectsOnly() bool {
	user, _, _ := strings.Cut(o.User, ":")

	return o.Join != "" || o.URL != "" && proto.Role(user) == proto.RoleCollector
}

// connect connects to the bus that a command names, as a role, or to the one bus that
// runs on this machine.
func connect(o connectOptions, role proto.Role, log zerolog.Logger) (*link, error) {
	list, err := connectAll(o, role, log)
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

	return nil, exit.Usage("choose one: promptmill join prints the join string of each",
		"%d buses run on this machine: %s", len(list), strings.Join(names, ", "))
}

// awaitBus is connect that waits for a bus that does not answer. A bus that refuses is not
// waited for, nor one that nobody has named.
func awaitBus(
	ctx context.Context, o connectOptions, role proto.Role, screen *terminal.Screen, log zerolog.Logger,
) (*link, error) {
	var said time.Time
	for attempts := 1; ; attempts++ {
		l, err := connect(o, role, log)
		if exit.Code(err) != exit.CodeUnreachable || !o.External() {
			return l, err
		}

		if _, ok := errors.AsType[finalError](err); ok {
			return nil, err
		}

		if time.Since(said) >= sayEvery {
			said = time.Now()
			screen.Printf("%v; waiting for it (%s)", err, exit.Hint(err))
		}

		if err := bus.Sleep(ctx, reconnectDelay(attempts)); err != nil {
			return nil, err
		}
	}
}

// connectAll connects to the bus that a command names, or to all that run on this
// machine, at least one.
func connectAll(o connectOptions, role proto.Role, log zerolog.Logger) ([]*link, error) {
	var opts []nats.Option
	if role == proto.RoleReader {
		opts = append(opts, nats.Name(readerName))
	}

	switch {
	case o.Join != "": // before the URL, which NATS_URL may have set for other programs
		j, err := proto.ParseJoin(o.Join)
		if err != nil {
			return nil, exit.Usage("paste all of it, as promptmill serve or run --listen has printed it",
				"--join: %w", err)
		}

		if !j.Role.Covers(role) {
			return nil, exit.Usage("promptmill join "+string(role)+", on the machine of the bus, prints the right one",
				"this join string lets in a %s, and %s needs one of a %s", j.Role, o.Command, role)
		}

		l, err := joinBus(j, log, opts...)
		if err != nil {
			return nil, err
		}

		return []*link{l}, nil
	case o.URL != "":
		l, err := connectExternal(o, role, log, opts...)
		if err != nil {
			return nil, err
		}
		return []*link{l}, nil
	}

	if o.State == "" {
		return nil, statedir.NoHomeError()
	}

	var list []*link
	for _, b := range localBuses(o.State) {
		id, err := loadIdentity(o.State)
		if err != nil {
			return nil, err
		}

		if l, err := joinBus(id.join(role, []string{b.here()}), log, opts...); err == nil {
			list = append(list, l)
		}
	}

	if len(list) == 0 {
		return nil, exit.Unreachable(errors.New("no bus runs on this machine"),
			"start one with promptmill serve or promptmill run, or name one with --join STRING or --nats URL")
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

// errOtherCertificate is returned when what answers is not the bus of a join string.
var errOtherCertificate = errors.New(
	"what answers there has another certificate: this join string is old, or of another machine",
)

// joinBus connects with a join string: over TLS, to a server with the certificate that
// it names, and no other.
func joinBus(j proto.Join, log zerolog.Logger, opts ...nats.Option) (*link, error) {
	away := &absence{log: log}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The certificate is pinned below, which is stronger than a chain of trust.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if sum := sha256.Sum256(s.PeerCertificates[0].Raw); !bytes.Equal(sum[:], j.Fingerprint[:]) {
				away.met(errOtherCertificate)
				return errOtherCertificate
			}
			return nil
		},
	}

	urls := make([]string, len(j.Addresses))
	for i, a := range j.Addresses {
		urls[i] = "tls://" + a
	}

	opts = append(opts, nats.Secure(config), nats.UserInfo(j.User(), j.Password()),
		nats.CustomInboxPrefix(j.Role.InboxPrefix()))
	where := strings.Join(j.Addresses, ", ")
	l := &link{}
	err := l.dial(strings.Join(urls, ","), log, away, opts...)
	if err == nil {
		return l, nil
	}
	if exit.IsError(err) {
		return nil, err
	}

	refused, other := joinErrors(urls, err, opts)
	switch {
	case refused:
		return nil, exit.Unreachable(finalError{fmt.Errorf("the bus at %s refuses this join string: it was revoked",
			where)},
			"take the one that promptmill join prints there now")
	case other:
		return nil,
			exit.Unreachable(finalError{fmt.Errorf("what answers at %s is not the bus of this join string: it has another certificate",
				where)},
				"the string is old, or of another machine: take the one that promptmill join prints there now")
	}

	return nil, exit.Unreachable(fmt.Errorf("no bus answers at %s: %w", where, err),
		"is promptmill serve, or run --listen, running there, and does a firewall let this port through?")
}

// joinErrors says more of why no address could be joined: the client gives only the error
// of the last. The bus refuses the string if one says so that has the right certificate;
// all are other buses only if none is merely not there, since one may be of another
// machine, as 127.0.0.1 is.
func joinErrors(urls []string, last error, opts []nats.Option) (refused, other bool) {
	errs := []error{last}
	if len(urls) > 1 {
		errs = make([]error, len(urls))
		var all sync.WaitGroup
		for i, u := range urls {
			all.Go(func() {
				conn, err := nats.Connect(u, append(slices.Clip(opts), nats.NoReconnect(),
					nats.Timeout(5*time.Second))...)
				if errs[i] = err; err == nil { // it has just come
					conn.Close()
				}
			})
		}

		all.Wait()
	}

	others := 0
	for _, err := range errs {
		refused = refused || errors.Is(err, nats.ErrAuthorization)
		if errors.Is(err, errOtherCertificate) {
			others++
		}
	}

	return refused, others == len(errs)
}

// connectExternal connects to a NATS server that is there already.
func connectExternal(
	o connectOptions, role proto.Role, log zerolog.Logger, opts ...nats.Option,
) (*link, error) {
	// A user called as one of our roles may listen for answers where that role may.
	if user, _, _ := strings.Cut(o.User, ":"); slices.Contains(proto.Roles(), proto.Role(user)) {
		role = proto.Role(user)
	}

	opts = append(opts, nats.CustomInboxPrefix(role.InboxPrefix()))
	if o.Credentials != "" {
		if _, err := os.Stat(o.Credentials); err != nil {
			return nil, exit.Usage("", "--nats-creds: %w", err)
		}
		opts = append(opts, nats.UserCredentials(o.Credentials))
	}

	if o.User != "" {
		name, password, _ := strings.Cut(o.User, ":")
		opts = append(opts, nats.UserInfo(name, cmp.Or(password, o.Password)))
	}

	if o.CA != "" {
		opts = append(opts, nats.RootCAs(o.CA))
	}

	if o.Certificate != "" {
		opts = append(opts, nats.ClientCert(o.Certificate, cmp.Or(o.Key, o.Certificate)))
	}

	l, err := dial(o.URL, log, opts...)
	switch {
	case err == nil:
	case exit.IsError(err):
		return nil, err
	case errors.Is(err, nats.ErrAuthorization):
		return nil, exit.Unreachable(finalError{fmt.Errorf("the NATS server at %s refuses these credentials",
			shown(o.URL))},
			"give --nats-creds FILE, --nats-user USER, or --tls-cert FILE")
	default:
		if e, ok := errors.AsType[*url.Error](err); ok {
			e.URL = shown(e.URL)
		}
		return nil, exit.Unreachable(fmt.Errorf("connect to the NATS server at %s: %w", shown(o.URL), err),
			"is it running, and is the URL right?")
	}

	if o.Replicas > 0 {
		l.limits.Replicas = o.Replicas
	}

	return l, nil
}

// newLog is a command's log: lines for people, or objects among those of --progress json.
func newLog(verbose bool, screen *terminal.Screen) zerolog.Logger {
	level := zerolog.WarnLevel
	if verbose {
		level = zerolog.DebugLevel
	}

	if screen.Mode() == terminal.ModeJSON {
		return zerolog.New(screen).Level(level).With().Str("type", "log").Timestamp().Logger()
	}

	return zerolog.New(zerolog.ConsoleWriter{Out: screen, NoColor: true, TimeFormat: "15:04:05"}).Level(level).With().
		Timestamp().Logger()
}
