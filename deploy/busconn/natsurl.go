package busconn

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// Check returns a usage error if the options cannot name a bus, whatever answers there.
func (o Options) Check() error {
	if o.Problem != nil {
		return o.Problem
	}

	err := o.checkBus()
	if err != nil && o.Context != "" { // the flags that the error names were not typed
		return exit.Usage(exit.Hint(err), "context %s: %w", o.Context, err)
	}

	return err
}

// checkBus is Check of options whose context is known.
func (o Options) checkBus() error {
	if o.Replicas > 1 && (o.Joins() || o.URL == "") {
		return exit.Usage("leave out --replicas, or name a cluster of NATS servers with --nats",
			"--replicas %d: a bus of promptmill is one server, and keeps one copy of each stream", o.Replicas)
	}

	if o.Join != "" && o.JoinFile != nil {
		return exit.Usage("leave out one of them, also in the environment", "--join and --join-file each name a bus")
	}

	if o.Joins() {
		if o.URL != "" && o.URLVariable != "NATS_URL" { // which may be set for other programs
			flag := "--join"
			if o.JoinFile != nil {
				flag = "--join-file"
			}

			return exit.Usage("leave out one of them, also in the environment", "%s and --nats each name a bus", flag)
		}

		_, err := o.ParseJoin()

		return err
	}

	if o.URL == "" {
		return nil
	}

	for _, text := range splitURLs(o.URL) {
		u, err := parseURL(text)
		if err != nil {
			return err
		}
		if u.User != nil && (o.User != "" || o.Credentials != "") {
			return exit.Usage("leave the user out of the URL, or leave out --nats-user and --nats-creds (NATS_USER and NATS_CREDS in the environment)",
				"--nats %s: the URL names a user, and so does a flag", RedactURLs(text))
		}
	}

	return o.checkFiles()
}

// splitURLs returns the URLs of a list with commas.
func splitURLs(list string) (urls []string) {
	for text := range strings.SplitSeq(list, ",") {
		if text = strings.TrimSpace(text); text != "" {
			urls = append(urls, text)
		}
	}
	return urls
}

// urlHint is the hint for a URL that cannot be parsed.
const urlHint = "for example --nats nats://HOST:4222"

// parseURL parses the URL of a NATS server as the client does.
func parseURL(text string) (*url.URL, error) {
	if strings.HasPrefix(text, "pm1_") {
		return nil, exit.Usage("give it with --join", "--nats: this is a join string, not a URL")
	}

	full := text
	if !strings.Contains(text, "://") {
		full = "nats://" + text
	}

	u, err := url.Parse(full)
	switch {
	case err != nil && strings.Contains(err.Error(), "invalid port"):
		return nil, exit.Usage(urlHint, "--nats %s: its port is not a number", RedactURLs(text))
	case err != nil:
		return nil, exit.Usage(urlHint, "--nats %s: it is not a URL", RedactURLs(text))
	case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, strings.ToLower(u.Scheme)):
		return nil, exit.Usage(urlHint, "--nats %s: %s is not the scheme of a NATS server, which is nats, tls, ws or wss",
			RedactURLs(text), u.Scheme)
	case u.Hostname() == "":
		return nil, exit.Usage(urlHint, "--nats %s: there is no host in it", RedactURLs(text))
	}

	if _, err := net.LookupPort("tcp", cmp.Or(u.Port(), "4222")); err != nil {
		return nil, exit.Usage(urlHint, "--nats %s: there is no port %s", RedactURLs(text), u.Port())
	}

	return u, nil
}

// server names the NATS server of the options, for errors.
func (o Options) server() string {
	name := "the NATS server at " + RedactURLs(o.URL)
	if o.URLVariable != "" {
		name += " (from " + o.URLVariable + ")"
	}
	return name
}

// connectURL connects to a NATS server that is not ours.
func connectURL(
	o Options, role proto.Role, log zerolog.Logger, opts ...nats.Option,
) (*Connection, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}

	credentials, err := o.credentials(role)
	if err != nil {
		return nil, err
	}

	opts = append(opts, credentials...)
	l, err := Dial(strings.Join(splitURLs(o.URL), ","), log, opts...)
	switch {
	case exit.IsError(err):
		return nil, err
	case err != nil:
		return nil, o.describeErrors(err, opts)
	}

	l.user = o.describeUser()
	if o.Replicas > 0 {
		l.Limits.Replicas = o.Replicas
	}

	err = l.checkPayload()
	if err == nil {
		err = l.CheckRole(role, o.Command)
	}
	if err == nil {
		err = l.checkJetStream()
	}
	if err != nil {
		l.Close()
		return nil, err
	}

	return l, nil
}

// describeErrors returns why no server takes a connection, of which the client has returned the last
// error.
func (o Options) describeErrors(last error, opts []nats.Option) error {
	urls := splitURLs(o.URL)
	errs := []error{last}
	if len(urls) > 1 || errors.Is(last, nats.ErrNoServers) {
		errs = tryEach(urls, opts)
	}

	names, texts := make([]string, len(urls)), make([]string, len(urls))
	var worst failure
	for i, err := range errs {
		if isRefusal(err) {
			return exit.Unreachable(finalError{fmt.Errorf("%s %w", o.server(), o.describeRefusal(err))},
				o.refusalHint(err))
		}

		f := o.describeFailure(urls[i], err)
		names[i], texts[i] = RedactURLs(urls[i]), f.what
		if worst.what == "" || f.final {
			worst = f
		}
	}

	err := fmt.Errorf("connect to %s: %s", o.server(), texts[0])
	if len(urls) > 1 {
		err = fmt.Errorf("connect to one of several NATS servers: %s", joinAnswers(names, texts))
	}
	if worst.final && len(urls) == 1 {
		err = finalError{err}
	}

	if o.URLVariable != "" {
		worst.hint += "; without " + o.URLVariable + ", this command uses the bus of this machine"
	}

	return exit.Unreachable(err, worst.hint)
}

// describeFailure describes why no NATS server answers at a URL.
func (o Options) describeFailure(text string, err error) failure {
	f := describeFailure(err)
	_, hasAuthority := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case hasAuthority && o.CA != "":
		f.hint = "give the certificate of that authority with --tls-ca: " + o.CA + " has that of another"
	case f.hint == clientCertificateHint && o.Certificate != "":
		f.hint = "give one that its authority has signed with --tls-cert: " + o.Certificate + " is another"
	case f.hint == closedHint && o.Certificate != "":
		f.hint = "give a client certificate whose authority the server knows: it may not know that of " + o.Certificate
	}

	if u, parsing := parseURL(text); parsing == nil {
		f = refineFailure(f, net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "4222")), err)
	}

	return f
}
