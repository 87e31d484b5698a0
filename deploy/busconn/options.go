package busconn

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/deploy/secretfile"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Options are the bus of a command and its user there. Without Join, JoinFile and URL it is the one bus
// that runs on this machine.
type Options struct {
	// Join is a join string. It takes precedence over URL.
	Join string
	// JoinFile has a join string in place of Join. It is read at each try to connect.
	JoinFile *secretfile.File
	// URL is the URL of a NATS server, or several with commas.
	URL string
	// URLVariable is the environment variable that has the URL. Empty if a flag has it.
	URLVariable string
	// User is a user of that server, or USER:PASSWORD.
	User string
	// Password is the password of User, if User has none.
	Password string
	// PasswordFile has the password of User in place of Password. It is read at each try to connect.
	PasswordFile *secretfile.File
	// Credentials is a file of NATS credentials.
	Credentials string
	// CA is a file of certificates to trust for the server.
	CA string
	// Certificate is the file of the client's certificate.
	Certificate string
	// Key is the file of its key. Defaults to Certificate.
	Key string
	// Context is the name of the context that the bus is from. Empty: none.
	Context string
	// ContextSelected is set if Context is the one that is selected, and was not named.
	ContextSelected bool
	// Problem is why the bus of a context is not known. Check returns it.
	Problem error
	// Replicas is the number of copies of each stream that is created on the server. Defaults
	// to 1.
	Replicas int
	// State is the state folder, which lists the buses of this machine. Empty if there is neither
	// a --state nor a home folder.
	State string
	// Standing leaves out buses of this machine that end with their run, if there is another one.
	Standing bool
	// Command is the name of the command, for errors.
	Command string
}

// External reports whether the options name a bus.
func (o Options) External() bool { return o.Joins() || o.URL != "" || o.Context != "" }

// Joins reports whether the options have a join string, or a file with one.
func (o Options) Joins() bool { return o.Join != "" || o.JoinFile != nil }

// ParseJoin returns the join string of the options. The error is one of usage.
func (o Options) ParseJoin() (proto.Join, error) {
	text, source := o.Join, "--join"
	if o.JoinFile != nil {
		var err error
		if text, err = o.JoinFile.Read(); err != nil {
			return proto.Join{}, err
		}
		source = o.JoinFile.String()
	}

	j, err := proto.ParseJoin(text)
	switch {
	case err == nil:
		return j, nil
	case strings.Contains(text, "://"):
		return j, exit.Usage("give a URL with --nats", "%s: %w", source, err)
	}

	return j, exit.Usage("paste all of it, as promptmill serve or run --listen has printed it", "%s: %w", source, err)
}

// CollectsOnly reports whether a run connects to its bus as a collector, which takes no shards.
// A user of another name of a NATS server may do all.
func (o Options) CollectsOnly() bool {
	user, _, _ := strings.Cut(o.User, ":")

	return o.Joins() || o.URL != "" && proto.Role(user) == proto.RoleCollector
}

// Connect connects to a bus as a role. Without a named bus, exactly one must run on this machine.
func Connect(o Options, role proto.Role, log zerolog.Logger) (*Connection, error) {
	list, err := ConnectAll(o, role, log)
	if err != nil {
		return nil, err
	}

	if len(list) > 1 && o.Standing {
		list = preferStanding(list)
	}

	if len(list) == 1 {
		return list[0], nil
	}

	var names []string
	for _, l := range list {
		names = append(names, l.Name)
		l.Close()
	}

	return nil, exit.Usage("choose one: promptmill join prints the join string of each",
		"%d buses run on this machine: %s", len(list), strings.Join(names, ", "))
}

// preferStanding closes the connections to buses that end with their run and returns the others, or
// returns all if no other is there.
func preferStanding(list []*Connection) []*Connection {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()

	var standing, ending []*Connection
	for _, l := range list {
		if run, err := bus.New(l.JS).Runs.EndsWith(ctx); err == nil && run != "" {
			ending = append(ending, l)
		} else {
			standing = append(standing, l)
		}
	}

	if len(standing) == 0 {
		return ending
	}

	for _, l := range ending {
		l.Close()
	}

	return standing
}

// Await is [Connect] that waits until a named bus answers, and reports that now and then. It
// does not wait for a bus that refuses the connection.
func Await(
	ctx context.Context, o Options, role proto.Role, report func(format string, args ...any), log zerolog.Logger,
) (*Connection, error) {
	var reported time.Time
	for attempts := 1; ; attempts++ {
		l, err := Connect(o, role, log)
		if exit.Code(err) != exit.CodeUnreachable || !o.External() {
			return l, err
		}

		if _, ok := errors.AsType[finalError](err); ok {
			return nil, err
		}

		if time.Since(reported) >= warnEvery {
			reported = time.Now()
			report("%v; waiting for it (%s)", err, exit.Hint(err))
		}

		if err := bus.Sleep(ctx, reconnectDelay(attempts)); err != nil {
			return nil, err
		}
	}
}

// warnOfExposure warns of files with secrets that other users of this machine may read.
func (o Options) warnOfExposure(log zerolog.Logger) {
	for _, file := range []*secretfile.File{o.JoinFile, o.PasswordFile} {
		if file == nil {
			continue
		}
		if text := file.Exposure(); text != "" {
			log.Warn().Str("file", file.Path()).Msg(text)
		}
	}
}

// ErrNoBus means that no bus is named and none runs on this machine.
var ErrNoBus = errors.New("no bus runs on this machine")

// ConnectAll connects to the named bus, or to all that run on this machine. It returns at least one
// connection.
func ConnectAll(o Options, role proto.Role, log zerolog.Logger) ([]*Connection, error) {
	var opts []nats.Option
	if role == proto.RoleReader {
		opts = append(opts, nats.Name(ReaderName))
	}

	if err := o.Check(); err != nil {
		return nil, err
	}

	o.warnOfExposure(log)

	switch {
	case o.Joins(): // before the URL, which NATS_URL may have set for other programs
		return asList(connectJoin(o, role, log, opts...))
	case o.URL != "":
		if o.URLVariable != "" && len(localbus.List(o.State)) > 0 {
			log.Warn().Str("bus", RedactURLs(o.URL)).
				Msg("using the bus of " + o.URLVariable + ", not the one of this machine")
		}

		return asList(connectURL(o, role, log, opts...))
	case o.State == "":
		return nil, statedir.NoHomeError()
	}

	return connectLocal(o.State, role, log, opts...)
}

// asList returns a connection as a list of one.
func asList(l *Connection, err error) ([]*Connection, error) {
	if err != nil {
		return nil, err
	}
	return []*Connection{l}, nil
}

// connectJoin connects with the join string of the options.
func connectJoin(o Options, role proto.Role, log zerolog.Logger, opts ...nats.Option) (*Connection, error) {
	j, err := o.ParseJoin()
	if err != nil {
		return nil, err
	}

	if !j.Role.Covers(role) {
		return nil, exit.Usage("promptmill join "+string(role)+", on the machine of the bus, prints the right one",
			"this join string lets in a %s, and %s needs one of a %s", j.Role, o.Command, role)
	}

	source := &joinSource{join: j}
	if o.JoinFile != nil {
		source.read = o.ParseJoin
	}

	return joinBus(source, false, log, opts...)
}

// connectLocal connects to all buses of a state folder that run on this machine. It returns at least one connection.
func connectLocal(state string, role proto.Role, log zerolog.Logger, opts ...nats.Option) ([]*Connection, error) {
	var list []*Connection
	var problem error // of a bus that runs
	for _, b := range localbus.List(state) {
		id, err := localbus.LoadIdentity(state)
		if err != nil {
			return nil, err
		}

		l, err := joinBus(&joinSource{join: id.Join(role, []string{b.LocalAddress()})}, true, log, opts...)
		if err == nil {
			list = append(list, l)
		} else if gone, ok := errors.AsType[*noAnswerError](err); !ok || !gone.isGone() { // else it was killed
			problem = err
		}
	}

	switch {
	case len(list) > 0:
		return list, nil
	case problem != nil:
		return nil, problem
	}

	return nil, exit.Unreachable(ErrNoBus,
		"start one with promptmill serve or promptmill run, or name one with --join-file FILE, --context NAME or --nats URL")
}
