package busconn

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// checkFiles returns a usage error if a file of the options cannot be used.
func (o Options) checkFiles() error {
	if o.PasswordFile != nil {
		if err := o.checkPasswordFile(); err != nil {
			return err
		}
	}

	if o.Credentials != "" {
		if _, err := o.credentialsOption(); err != nil {
			return err
		}
	}

	if o.CA != "" {
		text, err := readFlagFile("--tls-ca", o.CA)
		if err != nil {
			return err
		}
		if !x509.NewCertPool().AppendCertsFromPEM(text) {
			return exit.Usage("give a file with certificates in PEM", "--tls-ca %s: there is no certificate in it", o.CA)
		}
	}

	switch {
	case o.Certificate == "" && o.Key != "":
		return exit.Usage("give the certificate too, with --tls-cert", "--tls-key %s is the key of no certificate", o.Key)
	case o.Certificate == "":
		return nil
	}

	certificate, err := readFlagFile("--tls-cert", o.Certificate)
	if err != nil {
		return err
	}

	key, err := readFlagFile("--tls-key", o.keyFile())
	if err != nil {
		return err
	}

	if _, err := tls.X509KeyPair(certificate, key); err != nil {
		return exit.Usage("give the certificate with --tls-cert and its key with --tls-key, both in PEM",
			"--tls-cert %s: %s is not a certificate with its key: %s", o.Certificate, o.describePair(),
			strings.TrimPrefix(err.Error(), "tls: "))
	}

	return nil
}

// checkPasswordFile returns a usage error if the file of the password cannot be used.
func (o Options) checkPasswordFile() error {
	name, _, hasPassword := strings.Cut(o.User, ":")
	switch {
	case hasPassword:
		return exit.Usage("leave the password out of --nats-user", "%s: --nats-user has a password, and so has the file",
			o.PasswordFile)
	case name == "":
		return exit.Usage("give the user too, with --nats-user", "%s has the password of no user", o.PasswordFile)
	}

	_, err := o.PasswordFile.Read()

	return err
}

// keyFile returns the file with the key of the client's certificate.
func (o Options) keyFile() string { return cmp.Or(o.Key, o.Certificate) }

// describePair names the files of the client's certificate and its key.
func (o Options) describePair() string {
	if o.Key == "" {
		return "the file"
	}
	return "it, with --tls-key " + o.Key + ","
}

// readFlagFile reads a file that a flag names.
func readFlagFile(flag, path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err
		}
		return nil, exit.Usage("give the path of a file that this user may read", "%s %s: %w", flag, path, err)
	}
	return text, nil
}

// credentials returns the options of the client for the user of a NATS server.
func (o Options) credentials(role proto.Role) ([]nats.Option, error) {
	// A user called as one of our roles may listen for answers where that role may.
	name, _, _ := strings.Cut(o.User, ":")
	if slices.Contains(proto.Roles(), proto.Role(name)) {
		role = proto.Role(name)
	}

	opts := []nats.Option{nats.CustomInboxPrefix(role.InboxPrefix())}
	if o.Credentials != "" {
		option, err := o.credentialsOption()
		if err != nil {
			return nil, err
		}
		opts = append(opts, option)
	}

	if o.User != "" {
		opts = append(opts, nats.UserInfoHandler(func() (string, string) { return name, o.password() }))
	}

	if o.CA != "" {
		opts = append(opts, nats.RootCAs(o.CA))
	}

	if o.Certificate != "" {
		opts = append(opts, nats.ClientCert(o.Certificate, o.keyFile()))
	}

	return opts, nil
}

// password returns the password of the user of the options. It is empty if there is none.
func (o Options) password() string {
	if _, password, ok := strings.Cut(o.User, ":"); ok && password != "" {
		return password
	}

	if o.PasswordFile != nil {
		text, _ := o.PasswordFile.Read() // Check has reported the error; afterwards the server refuses the user
		return text
	}

	return o.Password
}

// credentialsOption returns the option of the client for the file of credentials, which is a JWT
// with a seed, or a seed alone.
func (o Options) credentialsOption() (nats.Option, error) {
	text, err := readFlagFile("--nats-creds", o.Credentials)
	if err != nil {
		return nil, err
	}
	defer clear(text)

	pair, err := nkeys.ParseDecoratedUserNKey(text)
	if err != nil {
		return nil, exit.Usage("give a .creds file, such as nsc makes, or a file with the seed of an NKey user",
			"--nats-creds %s: there is no seed of a user in it", o.Credentials)
	}

	pair.Wipe()
	if _, err := nkeys.ParseDecoratedJWT(text); err != nil || !strings.Contains(string(text), "JWT") {
		return nats.NkeyOptionFromSeed(o.Credentials)
	}

	return nats.UserCredentials(o.Credentials), nil
}

// credentialsEnd returns the time at which the file of credentials expires. It is far away if the
// file has none.
func (o Options) credentialsEnd() time.Time {
	never := time.Now().AddDate(100, 0, 0)
	text, err := os.ReadFile(o.Credentials)
	if err != nil {
		return never
	}
	defer clear(text)

	token, err := nkeys.ParseDecoratedJWT(text)
	if err != nil {
		return never
	}

	claims, err := jwt.DecodeUserClaims(token)
	if err != nil || claims.Expires == 0 {
		return never
	}

	return time.Unix(claims.Expires, 0)
}

// describeUser describes the user of the options at a NATS server.
func (o Options) describeUser() string {
	name, _, _ := strings.Cut(o.User, ":")
	switch {
	case name != "":
		return "the user " + name
	case o.Credentials != "":
		return "the user of " + o.Credentials
	case o.Certificate != "":
		return "the user of " + o.Certificate
	}

	for _, text := range splitURLs(o.URL) {
		u, err := parseURL(text)
		if err != nil || u.User == nil {
			continue
		}
		if _, ok := u.User.Password(); ok {
			return "the user " + u.User.Username()
		}
		return tokenUser
	}

	return noUser
}

// Clients without the name of a user.
const (
	noUser    = "a client without credentials"
	tokenUser = "the client with the token of the URL" // a name without a password is a token
)

// refusals are the errors of a server that does not accept a user.
var refusals = []error{
	nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired,
	nats.ErrNkeysNotSupported,
}

// isRefusal reports whether a server does not accept a user.
func isRefusal(err error) bool {
	return slices.ContainsFunc(refusals, func(refusal error) bool { return errors.Is(err, refusal) })
}

// describeRefusal describes why a server does not accept the user of the options.
func (o Options) describeRefusal(err error) error {
	name, _, _ := strings.Cut(o.User, ":")
	switch {
	case errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAccountAuthExpired):
		return errors.New("refuses these credentials: they have expired")
	case errors.Is(err, nats.ErrAuthRevoked):
		return errors.New("refuses these credentials: they were revoked")
	case errors.Is(err, nats.ErrNkeysNotSupported):
		return errors.New("refuses these credentials: it has no users with NKeys")
	case o.Credentials != "" && !o.credentialsEnd().After(time.Now()):
		return fmt.Errorf("refuses these credentials: %s expired at %s UTC", o.Credentials,
			o.credentialsEnd().UTC().Format(time.DateTime))
	case o.Credentials != "":
		return errors.New("refuses these credentials, of " + o.Credentials)
	case name != "" && o.password() == "":
		return errors.New("refuses these credentials: the user " + name + " has no password here")
	case name != "":
		return errors.New("refuses these credentials: it has no user " + name + ", or one with another password")
	}

	return errors.New("refuses " + o.describeUser())
}

// refusalHint returns the hint for a server that does not accept the user of the options.
func (o Options) refusalHint(err error) string {
	name, password, _ := strings.Cut(o.User, ":")
	switch {
	case errors.Is(err, nats.ErrNkeysNotSupported):
		return "give --nats-user USER with NATS_PASSWORD in the environment, or a .creds file"
	case o.Credentials != "":
		return "give the credentials of a user that this server knows with --nats-creds FILE"
	case name != "" && o.password() == "":
		return "set NATS_PASSWORD in the environment to the password of " + name
	case name != "" && password == "" && o.PasswordFile != nil:
		return "correct --nats-user, or the password in " + o.PasswordFile.Path()
	case name != "" && password == "":
		return "correct --nats-user, or NATS_PASSWORD in the environment"
	case name != "":
		return "correct --nats-user USER:PASSWORD"
	case o.describeUser() == noUser && o.Password != "":
		return "give the user of the password in NATS_PASSWORD with --nats-user USER"
	case o.describeUser() == noUser:
		return "give --nats-creds FILE, --nats-user USER with NATS_PASSWORD in the environment, or --tls-cert FILE"
	case o.describeUser() == tokenUser:
		return "NATS takes a name without a password in a URL as a token; give a user with --nats-user USER, and NATS_PASSWORD in the environment"
	}

	return "correct the user and the password in the URL"
}

// errCertificateRefused is the error of a server that asks for a client certificate, and closes the
// connection when it has seen it, or that there is none.
var errCertificateRefused = errors.New("the client certificate is refused")

// recordCertificateRequest returns an option that notes whether the server asks for a client
// certificate. In TLS 1.3 the server judges the certificate after the client's handshake is done, and
// its alert is lost if the client has sent more by then.
func recordCertificateRequest(wanted *atomic.Bool) nats.Option {
	return func(o *nats.Options) error {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if o.TLSConfig != nil {
			config = o.TLSConfig.Clone()
		}

		load := o.TLSCertCB
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			wanted.Store(true)
			if load == nil {
				return &tls.Certificate{}, nil
			}

			certificate, err := load()

			return &certificate, err
		}

		o.TLSConfig = config

		return nil
	}
}
