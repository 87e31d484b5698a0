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
	"github.com/promptmill/promptmill/deploy/page"
)

// apiFlags returns the flags of the batch API.
func apiFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:     "api",
			Category: groupAPI,
			Usage:    "`[HOST:]PORT`: address for clients of OpenAI's batch API; without a host, only this machine can connect",
		},
		&cli.StringFlag{
			Name:     "page",
			Category: groupAPI,
			Usage:    "`[HOST:]PORT`: address of the page that shows the runs in a browser; without a host, only this machine can connect",
		},
		apiKeyFileFlag(),
		&cli.BoolFlag{
			Name:     "api-tls",
			Category: groupAPI,
			Usage:    "encrypt the batch API and the page with a certificate that promptmill makes",
		},
		&cli.StringFlag{
			Name:     "api-cert",
			Category: groupAPI,
			Usage:    "`FILE`: encrypt the batch API and the page with this certificate; it is read again when the file changes",
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
			Usage:    "`FILE`: append a line of JSON for each request of the batch API and the page; - is standard output",
		},
	}
}

// apiFlagsAlone are the flags that do nothing without --api or --page.
var apiFlagsAlone = []string{"api-key-file", "api-tls", "api-cert", "api-cert-key", "api-log"}

// apiOptions are the flags of the batch API and of the page.
type apiOptions struct {
	// address is HOST:PORT. Empty: there is no batch API.
	address string
	// page is the HOST:PORT of the page. Empty: there is none.
	page string
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

// hasAPI reports whether there is a batch API, and hasPage whether there is a page.
func (o apiOptions) hasAPI() bool  { return o.address != "" }
func (o apiOptions) hasPage() bool { return o.page != "" }

// encrypted reports whether connections are encrypted.
func (o apiOptions) encrypted() bool { return o.tls || o.cert != "" }

// parseAPI reads and checks the flags of the batch API and of the page.
func parseAPI(env environment, c *cli.Command) (o apiOptions, err error) {
	if o.address, err = parseWebAddress(c, "api"); err != nil {
		return o, err
	}
	if o.page, err = parseWebAddress(c, "page"); err != nil || !o.hasAPI() && !o.hasPage() {
		return o, err
	}

	o.tls, o.cert, o.log = c.Bool("api-tls"), c.String("api-cert"), c.String("api-log")
	o.certKey, o.advertise = cmp.Or(c.String("api-cert-key"), o.cert), c.String("advertise")
	if o.tls && o.cert != "" {
		return o, exit.Usage("leave out one of them", "--api-tls makes a certificate, and --api-cert names another one")
	}

	if _, port, _ := net.SplitHostPort(o.page); o.page == o.address && port != "0" {
		return o, exit.Usage("give --page another port", "--page %s: the batch API has this address", o.page)
	}

	if o.keys, err = openKeys(env, c); err != nil {
		return o, err
	}
	o.createKey = writeKeyCommand(c, "create")

	return o, o.checkKeys(c.String("api-key-file"))
}

// parseWebAddress reads the address of a flag, which is --api or --page. It is empty if the flag is not set.
func parseWebAddress(c *cli.Command, flag string) (address string, err error) {
	text := c.String(flag)
	if text == "" && !cmdline.IsTyped(c, flag) { // an empty environment variable counts as not set
		return "", nil
	}

	if address, err = httpserver.ParseAddress(text); err != nil {
		typed := strings.TrimSpace("--" + flag + " " + text)
		return "", exit.Usage("for example --"+flag+" 8080 or --"+flag+" 0.0.0.0:8080", "%s: %w", typed, err)
	}

	return address, nil
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

	what := "the batch API"
	if !o.hasAPI() {
		what = "the page"
	}

	required, err := o.keys.Required()
	flag, open := o.findOpen()
	switch {
	case err != nil:
		return exit.Usage(exit.Hint(explainKeyFile(err)), "%w", err)
	case open != "":
		err = exit.Usage("", "%s %s: other machines can connect there, and there is no API key in %s",
			flag, open, o.keys.Path())
	case named != "":
		err = exit.Usage("", "--api-key-file %s: there is no API key in it", named)
	case required:
		err = exit.Usage("", "there is no API key left in %s, and without one %s would accept all requests",
			o.keys.Path(), what)
	default:
		return nil
	}

	return exit.WithCommand(err, "make one: ", o.createKey)
}

// findOpen returns the flag and the address at which other machines can connect. Both are empty if there is none.
func (o apiOptions) findOpen() (flag, address string) {
	switch {
	case o.hasAPI() && !httpserver.IsLoopback(o.address):
		return "--api", o.address
	case o.hasPage() && !httpserver.IsLoopback(o.page):
		return "--page", o.page
	}

	return "", ""
}

// webParts are what the batch API and the page of a process have in common.
type webParts struct {
	tls       *tls.Config
	authority string // the file that clients trust; empty: none is needed
	accessLog *httpserver.AccessLog
	close     func()
}

// openParts opens what the batch API and the page have in common. It does so once their addresses are known to be free.
func (o apiOptions) openParts(cmd *activeCommand, state string) (parts webParts, err error) {
	if o.hasAPI() {
		if err := httpserver.CheckListen("--api", o.address); err != nil { // before files are made
			return parts, err
		}
	}
	if o.hasPage() {
		if err := httpserver.CheckListen("--page", o.page); err != nil {
			return parts, err
		}
	}

	log := cmd.log.With().Str("part", "api").Logger()
	if parts.tls, parts.authority, err = o.loadTLS(state, log); err != nil {
		return parts, err
	}

	if parts.accessLog, parts.close, err = o.openLog(cmd.env); err != nil {
		return parts, err
	}

	if _, open := o.findOpen(); open != "" {
		o.keys.Require()
	}

	return parts, nil
}

// newListen returns how to listen at the address of a flag.
func (p webParts) newListen(address, flag string, log zerolog.Logger) httpserver.Config {
	return httpserver.Config{
		Address:   address,
		Flag:      flag,
		TLS:       p.tls,
		AccessLog: p.accessLog,
		Log:       log,
	}
}

// openAPI listens for clients of the batch API. cfg has the folders, the format and the receiver of batches
// that have ended.
func openAPI(cmd *activeCommand, cfg apiserver.Config, o apiOptions, parts webParts) (*apiserver.Server, error) {
	cfg.Log = cmd.log.With().Str("part", "api").Logger()
	cfg.Listen, cfg.Advertise, cfg.Keys = parts.newListen(o.address, "--api", cfg.Log), hostOf(o.advertise), o.keys
	cfg.Version, cfg.Metrics = versionText(), cmd.metrics

	started := cfg.Started
	cfg.Started = func(url string) {
		o.printStart(cmd, url, parts.authority)
		if started != nil {
			started(url)
		}
	}

	return apiserver.Open(cfg)
}

// openPage listens for viewers of the page. cfg has the folders, and the owners of runs.
func openPage(cmd *activeCommand, cfg page.Config, o apiOptions, parts webParts) (*page.Server, error) {
	cfg.Log = cmd.log.With().Str("part", "page").Logger()
	cfg.Listen, cfg.Advertise, cfg.Keys = parts.newListen(o.page, "--page", cfg.Log), hostOf(o.advertise), o.keys
	cfg.Version = versionText()
	cfg.Started = func(url string) { o.printPageStart(cmd, url, parts.authority) }

	return page.Open(cfg)
}

// printPageStart prints where the page is, and what it needs.
func (o apiOptions) printPageStart(cmd *activeCommand, url, authority string) {
	cmd.screen.Printf("page: %s", url)
	if o.hasAPI() {
		return // the start of the batch API says the rest
	}

	if required, err := o.keys.Required(); err != nil {
		cmd.screen.Printf("warning: %v; the page refuses all requests", err)
	} else if !required {
		cmd.screen.Printf("each program of this machine may use it; %s makes a key", o.createKey)
	}

	if authority != "" {
		cmd.screen.Printf("browsers trust its certificate once they have imported %s", report.ShellWords(authority))
	}

	if !o.encrypted() && !httpserver.IsLoopback(o.page) {
		cmd.screen.Printf("warning: keys and answers go over the network in clear; --api-tls encrypts them")
	}
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

		own, path, err := localbus.LoadAuthority(state, id, hostOf(o.address), hostOf(o.page), hostOf(o.advertise))
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
