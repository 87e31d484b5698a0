package main

import (
	"context"
	"crypto/x509"
	"os"
	"regexp"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/secretfile"
	"github.com/promptmill/promptmill/deploy/usershell"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// modelFlags returns the flags of the model servers and of how requests are run there.
func modelFlags() []cli.Flag {
	return append([]cli.Flag{
		&wholeTextsFlag{
			Name:     "exec",
			Category: groupModel,
			Usage:    "`COMMAND`: start a model server with this command, and restart it when it ends; {port} is a free port",
		},
		&cli.StringFlag{
			Name:     "gpus",
			Category: groupModel,
			Usage:    "`LIST`: start a server of --exec on each graphics card: all, or such as 0,2-3; 0+1 are two of one server",
		},
	}, requestFlags()...)
}

// requestFlags returns the flags of how requests are run at model servers.
func requestFlags() []cli.Flag {
	return []cli.Flag{
		eachAddressFlag(),
		apiKeyFlag(),
		modelKeyFileFlag(),
		modelCAFlag(),
		&cli.IntFlag{
			Name:        "concurrency",
			Category:    groupModel,
			Usage:       "`N`: concurrent requests at each model server",
			DefaultText: "tuned to the server",
		},
		&cli.IntFlag{
			Name:     "max-concurrency",
			Category: groupModel,
			Value:    limit.DefaultMax,
			Usage:    "`N`: the most concurrent requests that the tuning tries at each model server",
		},
		&cli.IntFlag{
			Name:     "attempts",
			Category: groupModel,
			Value:    5,
			Usage:    "`N`: attempts for each request, at most; a refusal for too many requests (429, 503, 529) counts as a quarter",
		},
		&cli.DurationFlag{
			Name:     "timeout",
			Category: groupModel,
			Value:    30 * time.Minute,
			Usage:    "`DURATION`: time limit of an attempt",
		},
		&cli.DurationFlag{
			Name:     "stall",
			Category: groupModel,
			Value:    5 * time.Minute,
			Usage:    "`DURATION`: a model server that makes no progress for this time counts as hung",
		},
		&cli.DurationFlag{
			Name:     "grace",
			Category: groupModel,
			Value:    30 * time.Second,
			Usage:    "`DURATION`: time to finish the requests in flight after Ctrl-C or SIGTERM",
		},
	}
}

func urlFlag() cli.Flag {
	return &cli.StringSliceFlag{
		Name:        "url",
		Category:    groupModel,
		Usage:       "`URL`: OpenAI-compatible model server",
		DefaultText: "found on this machine",
	}
}

func eachAddressFlag() cli.Flag {
	return &cli.BoolFlag{
		Name:     "each-address",
		Category: groupModel,
		Value:    true,
		Usage:    "treat each private address behind the host name of a --url as a server of its own; with =false, the name is one server or load balancer",
	}
}

func apiKeyFlag() cli.Flag {
	return &cli.StringFlag{
		Name:     "api-key",
		Category: groupModel,
		Usage:    "`KEY`: API key of the model server; give it as PROMPTMILL_API_KEY to keep it out of the shell's history",
	}
}

func modelKeyFileFlag() cli.Flag {
	return &cli.StringFlag{
		Name:     "model-key-file",
		Category: groupModel,
		Usage:    "`FILE`: API key of the model server, in place of --api-key",
	}
}

func modelCAFlag() cli.Flag {
	return &cli.StringFlag{
		Name:     "model-ca",
		Category: groupModel,
		Usage:    "`FILE`: PEM certificates to trust for https model servers, besides those of the system",
	}
}

// localhost is the name in a URL that means the same as 127.0.0.1. A host that has another server at ::1 needs both
// addresses named.
var localhost = regexp.MustCompile(`//localhost(:|/|$)`)

// parseServers reads and checks the flags that name model servers.
func parseServers(c *cli.Command) (modelservers.Config, error) {
	cfg, err := parseAccess(c)
	if err != nil {
		return cfg, err
	}

	cfg.URLs = c.StringSlice("url")
	named := map[string]string{}
	for _, url := range cfg.URLs {
		s, err := modelserver.New(url, "")
		if err != nil {
			return cfg, exit.Usage("", "--url: %w", err)
		}

		s.Close()
		place := localhost.ReplaceAllString(s.URL(), "//127.0.0.1$1")
		switch before := named[place]; before {
		case "":
			named[place] = s.URL()
		case s.URL():
			return cfg, exit.Usage("name each model server once", "--url %s is given twice", s.URL())
		default:
			return cfg, exit.Usage("name each model server once", "--url %s and --url %s are one model server", before, s.URL())
		}
	}

	return cfg, nil
}

// parseAccess reads and checks the flags of how model servers are reached.
func parseAccess(c *cli.Command) (cfg modelservers.Config, err error) {
	cfg = modelservers.Config{
		OneAddress: !c.Bool("each-address"),
		APIKey:     c.String("api-key"),
	}

	if path := c.String("model-key-file"); path != "" {
		return parseKeyFile(c, cfg, secretfile.New("--model-key-file", path))
	}

	if _, err := modelserver.CleanKey(cfg.APIKey); err != nil {
		return cfg, exit.Usage("", "--api-key or PROMPTMILL_API_KEY: %w", err)
	}

	cfg.Roots, err = parseRoots(c.String("model-ca"))

	return cfg, err
}

// parseKeyFile is parseAccess with the key of a file.
func parseKeyFile(c *cli.Command, cfg modelservers.Config, file *secretfile.File) (modelservers.Config, error) {
	if cfg.APIKey != "" {
		return cfg, exit.Usage("leave out one of them, also in the environment", "%s: --api-key names a key too", file)
	}

	var err error
	if cfg.APIKey, err = file.Read(); err != nil {
		return cfg, err
	}

	if _, err := modelserver.CleanKey(cfg.APIKey); err != nil {
		return cfg, exit.Usage("", "%s: %w", file, err)
	}

	cfg.Roots, err = parseRoots(c.String("model-ca"))

	return cfg, err
}

// parseRoots reads the certificates of a file, if one is named, and those of the system.
func parseRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}

	text, err := os.ReadFile(file)
	if err != nil {
		return nil, exit.Usage("", "--model-ca %s: %w", file, files.WithoutPath(err))
	}

	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // this system has none
	}

	if !roots.AppendCertsFromPEM(text) {
		return nil, exit.Usage("it is the file that begins with -----BEGIN CERTIFICATE-----",
			"--model-ca %s: there is no certificate in it", file)
	}

	return roots, nil
}

// parseWorkers reads and checks the flags of how requests are run at model servers.
func parseWorkers(c *cli.Command) (pipeline.WorkerConfig, error) {
	o := pipeline.WorkerConfig{
		Concurrency:    c.Int("concurrency"),
		MaxConcurrency: c.Int("max-concurrency"),
		Attempts:       c.Int("attempts"),
		Timeout:        c.Duration("timeout"),
		Stall:          c.Duration("stall"),
		Grace:          c.Duration("grace"),
	}

	for _, name := range []string{"concurrency", "max-concurrency", "attempts"} {
		if c.Int(name) < 1 && (name != "concurrency" || c.IsSet(name)) {
			return o, exit.Usage("", "--%s %d: must be at least 1", name, c.Int(name))
		}
	}

	if c.IsSet("concurrency") && c.IsSet("max-concurrency") {
		return o, exit.Usage("leave out one of them",
			"--concurrency sets the number of concurrent requests, so --max-concurrency has nothing to limit")
	}

	for _, name := range []string{"timeout", "stall", "grace"} {
		if c.Duration(name) <= 0 {
			return o, exit.Usage("", "--%s %s: must be more than 0", name, c.Duration(name))
		}
	}

	return o, nil
}

// parseModels reads and checks the flags of the model servers and of how requests are run there.
func parseModels(
	ctx context.Context, env environment, c *cli.Command,
) (modelservers.Config, pipeline.WorkerConfig, error) {
	cfg, err := parseServers(c)
	if err != nil {
		return cfg, pipeline.WorkerConfig{}, err
	}

	o, err := parseWorkers(c)
	if err != nil {
		return cfg, o, err
	}

	if c.Bool("sim") && (c.IsSet("url") || c.IsSet("exec")) {
		return cfg, o, exit.Usage("leave out one of them", "--sim excludes --url and --exec")
	}

	switch {
	case c.IsSet("exec"):
		cfg, err = parseCommands(ctx, env, c, cfg)
		return cfg, o, err
	case c.Bool("sim"):
		simulated, err := parseSim(c)
		if err != nil {
			return cfg, o, err
		}
		cfg.Sim = &simulated
	}

	return cfg, o, nil
}

// parseCommands reads and checks the flags of the model servers that are started.
func parseCommands(
	ctx context.Context, env environment, c *cli.Command, cfg modelservers.Config,
) (modelservers.Config, error) {
	for _, script := range textsOf(c, "exec") {
		cfg.Commands = append(cfg.Commands, modelservers.Command{Script: script})
	}

	if list := c.String("gpus"); c.IsSet("gpus") {
		var err error
		host := modelservers.NewGPUHost(env.getenv)
		if cfg.Commands, err = modelservers.AssignGPUs(ctx, cfg.Commands, list, host); err != nil {
			return cfg, err
		}
	}

	switch urls := cfg.URLs; {
	case len(urls) > 0 && len(cfg.Commands) > 1:
		return cfg, exit.Usage("leave out --url: each command says where its server listens",
			"--url is given, and --exec starts %d model servers", len(cfg.Commands))
	case len(urls) > 1:
		return cfg, exit.Usage("give the one at which the command's server answers",
			"--exec starts one model server, and there are %d --url", len(urls))
	case len(urls) == 1:
		cfg.Commands[0].URL, cfg.URLs = urls[0], nil
	}

	if err := usershell.CheckShell(); err != nil {
		return cfg, exit.Usage("or start the model server in a container of its own, and name it with --url",
			"--exec: %w", err)
	}

	return cfg, cfg.CheckCommands()
}
