package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/apiserver"
	"github.com/promptmill/promptmill/deploy/cmdline"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/httpserver"
	"github.com/promptmill/promptmill/deploy/localbus"
)

// apiFlags returns the flags of the batch API.
func apiFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:     "api",
			Category: groupAPI,
			Usage:    "`[HOST:]PORT`: address for clients of OpenAI's batch API; without a host, only this machine can connect",
		},
		apiKeyFileFlag(),
		&cli.BoolFlag{
			Name:     "api-tls",
			Category: groupAPI,
			Usage:    "encrypt the batch API with a certificate that promptmill makes",
		},
		&cli.StringFlag{
			Name:     "api-cert",
			Category: groupAPI,
			Usage:    "`FILE`: encrypt the batch API with this certificate; it is read again when the file changes",
		},
		&cli.StringFlag{
			Name:        "api-cert-key",
			Category:    groupAPI,
			Usage:       "`FILE`: key of that certificate",
			DefaultText: "the file of --api-cert",
		},
		&cli.StringFlag{
			Name:     "api-log",
			Category: groupAPI,
			Usage:    "`FILE`: append a line of JSON for each request of the batch API; - is standard output",
		},
	}
}

// apiFlagsAlone are the flags that do nothing without --api.
var apiFlagsAlone = []string{"api-key-file", "api-tls", "api-cert", "api-cert-key", "api-log"}

// apiOptions are the flags of the batch API.
type apiOptions struct {
	// address is HOST:PORT. Empty: there is no batch API.
	address string
	// keys are the keys of its clients.
	keys *apikey.File
	// createKey is the command that makes a key for them.
	createKey string
	// tls is set for a certificate that promptmill makes.
	tls bool
	// cert and certKey are the files of the user's certificate. Empty: none.
	cert, certKey string
	// log is the file of the access log, or -. Empty: none.
	log string
	// advertise is the HOST[:PORT] of this machine for others. Empty: its addresses.
	advertise string
}

// enabled reports whether there is a batch API.
func (o apiOptions) enabled() bool { return o.address != "" }

// encrypted reports whether connections are encrypted.
func (o apiOptions) encrypted() bool { return o.tls || o.cert != "" }

// parseAPI reads and checks the flags of the batch API.
func parseAPI(env environment, c *cli.Command) (o apiOptions, err error) {
	address := c.String("api")
	if address == "" && !cmdline.IsTyped(c, "api") { // an empty environment variable counts as not set
		return o, nil
	}

	o = apiOptions{
		tls:       c.Bool("api-tls"),
		cert:      c.String("api-cert"),
		certKey:   cmp.Or(c.String("api-cert-key"), c.String("api-cert")),
		log:       c.String("api-log"),
		advertise: c.String("advertise"),
	}
	if o.tls && o.cert != "" {
		return o, exit.Usage("leave out one of them", "--api-tls makes a certificate, and --api-cert names another one")
	}

	if o.address, err = httpserver.ParseAddress(address); err != nil {
		typed := strings.TrimSpace("--api " + address)
		return o, exit.Usage("for example --api 8080 or --api 0.0.0.0:8080", "%s: %w", typed, err)
	}

	if o.keys, err = openKeys(env, c); err != nil {
		return o, err
	}
	o.createKey = writeKeyCommand(c, "create")

	return o, o.checkKeys(c.String("api-key-file"))
}

// checkKeys refuses a file of keys that cannot be read, and to serve without a key where keys are wanted:
// for other machines, and with a file of keys, be it named by the flag or left without a key. named is
// the value of --api-key-file.
func (o apiOptions) checkKeys(named string) error {
	keys, err := o.keys.Keys()
	if err != nil {
		return exit.Usage(exit.Hint(explainKeyFile(err)), "%w", err)
	}
	if len(keys) > 0 {
		return nil
	}

	required, err := o.keys.Required()
	switch {
	case err != nil:
		return exit.Usage(exit.Hint(explainKeyFile(err)), "%w", err)
	case !httpserver.IsLoopback(o.address):
		err = exit.Usage("", "--api %s: other machines can connect there, and there is no API key in %s",
			o.address, o.keys.Path())
	case named != "":
		err = exit.Usage("", "--api-key-file %s: there is no API key in it", named)
	case required:
		err = exit.Usage("", "there is no API key left in %s, and without one the batch API would accept all requests",
			o.keys.Path())
	default:
		return nil
	}

	return exit.WithCommand(err, "make one: ", o.createKey)
}

// openAPI listens for clients of the batch API. cfg has the folders, the format and the receiver of batches
// that have ended.
func openAPI(
	cmd *activeCommand, cfg apiserver.Config, o apiOptions,
) (api *apiserver.Server, closeAll func(), err error) {
	if err := httpserver.CheckListen("--api", o.address); err != nil { // before files are made
		return nil, nil, err
	}

	log := cmd.log.With().Str("part", "api").Logger()
	listen := httpserver.Config{Address: o.address, Flag: "--api", Log: log}

	var authority string
	if listen.TLS, authority, err = o.loadTLS(cfg.State, log); err != nil {
		return nil, nil, err
	}

	accessLog, closeLog, err := o.openLog(cmd.env)
	if err != nil {
		return nil, nil, err
	}

	listen.AccessLog = accessLog

	if !httpserver.IsLoopback(o.address) {
		o.keys.Require()
	}

	cfg.Listen, cfg.Advertise, cfg.Keys = listen, hostOf(o.advertise), o.keys
	cfg.Version, cfg.Metrics, cfg.Log = versionText(), cmd.metrics, log
	started := cfg.Started
	cfg.Started = func(url string) {
		o.printStart(cmd, url, authority)
		if started != nil {
			started(url)
		}
	}

	if api, err = apiserver.Open(cfg); err != nil {
		closeLog()
		return nil, nil, err
	}

	return api, func() {
		api.Close()
		closeLog()
	}, nil
}

// printStart prints where the batch API is, and who can use it.
func (o apiOptions) printStart(cmd *activeCommand, url, authority string) {
	cmd.screen.Printf("batch API on %s", url)

	required, err := o.keys.Required()
	switch {
	case err != nil:
		cmd.screen.Printf("warning: %v; the batch API refuses all requests", err)
	case !required:
		cmd.screen.Printf("it accepts any api_key from this machine; %s makes the first real one", o.createKey)
	}

	if authority != "" {
		cmd.screen.Printf("clients trust its certificate with SSL_CERT_FILE=%s (Node: NODE_EXTRA_CA_CERTS)",
			report.ShellWords(authority))
	}

	if !o.encrypted() && !httpserver.IsLoopback(o.address) {
		cmd.screen.Printf("warning: keys and prompts go over the network in clear; --api-tls encrypts them")
	}
}

// loadTLS returns the configuration of the certificate, or nil. authority is the file that clients
// trust, if promptmill makes the certificate.
func (o apiOptions) loadTLS(state string, log zerolog.Logger) (cfg *tls.Config, authority string, err error) {
	cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case o.cert != "":
		certificate, err := httpserver.LoadCertificate(o.cert, o.certKey, log)
		if err != nil {
			return nil, "", exit.Usage("give the certificate and its key as PEM files with --api-cert and --api-cert-key",
				"--api-cert %s: %w", o.cert, err)
		}
		cfg.GetCertificate = certificate.GetCertificate
	case o.tls:
		id, err := localbus.LoadIdentity(state)
		if err != nil {
			return nil, "", err
		}

		own, path, err := localbus.LoadAuthority(state, id, hostOf(o.address), hostOf(o.advertise))
		if err != nil {
			return nil, "", err
		}
		cfg.GetCertificate, authority = own.GetCertificate, path
	default:
		return nil, "", nil
	}

	return cfg, authority, nil
}

// hostOf returns the host of HOST[:PORT].
func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

// openLog opens the access log. It is nil if there is none.
func (o apiOptions) openLog(env environment) (log *httpserver.AccessLog, closeLog func(), err error) {
	switch o.log {
	case "":
		return nil, func() {}, nil
	case "-":
		return httpserver.NewAccessLog(env.stdout), func() {}, nil
	}

	path, err := filepath.Abs(o.log)
	if err != nil {
		return nil, nil, err
	}

	log, err = httpserver.OpenAccessLog(path)
	if err != nil {
		return nil, nil, exit.Usage("name another file with --api-log, or - for standard output",
			"--api-log %s: the file cannot be written: %w", o.log, faultOf(err))
	}

	return log, func() { log.Close() }, nil
}

// faultOf returns the fault of a file in the words of the system.
func faultOf(err error) error {
	if fault, ok := errors.AsType[*os.PathError](err); ok {
		return fault.Err
	}
	return err
}
