package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/gpu"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/supervise"
)

// modelFlags say where the model server is and how requests are run there.
func modelFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:    "exec",
			Usage:   "start the model server with this `COMMAND`, and keep it running",
			Sources: flagEnv("exec"),
		},
		eachAddressFlag(),
		apiKeyFlag(),
		modelCAFlag(),
		&cli.IntFlag{
			Name:        "concurrency",
			Usage:       "requests at once at each model server",
			DefaultText: "found out",
			Sources:     flagEnv("concurrency"),
		},
		&cli.IntFlag{
			Name:    "max-concurrency",
			Value:   limit.DefaultMax,
			Usage:   "the most that is tried to find that out",
			Sources: flagEnv("max-concurrency"),
		},
		&cli.IntFlag{
			Name:    "attempts",
			Value:   5,
			Usage:   "attempts for each request, at most; a refusal for too many requests (429, 503, 529) counts a quarter",
			Sources: flagEnv("attempts"),
		},
		&cli.DurationFlag{
			Name:    "timeout",
			Value:   30 * time.Minute,
			Usage:   "of one attempt",
			Sources: flagEnv("timeout"),
		},
		&cli.DurationFlag{
			Name:    "stall",
			Value:   5 * time.Minute,
			Usage:   "a model server that makes no progress for so long counts as hung",
			Sources: flagEnv("stall"),
		},
		&cli.DurationFlag{
			Name:    "grace",
			Value:   30 * time.Second,
			Usage:   "to finish requests in flight after Ctrl-C",
			Sources: flagEnv("grace"),
		},
	}
}

func urlFlag() cli.Flag {
	return &cli.StringSliceFlag{
		Name:        "url",
		Usage:       "an OpenAI-compatible model server (repeatable)",
		DefaultText: "found on this machine",
		Sources:     flagEnv("url"),
	}
}

func eachAddressFlag() cli.Flag {
	return &cli.BoolFlag{
		Name:    "each-address",
		Value:   true,
		Usage:   "take each private address of the name in a --url for a server; =false: they lead to one server or load balancer",
		Sources: flagEnv("each-address"),
	}
}

func apiKeyFlag() cli.Flag {
	return &cli.StringFlag{
		Name:    "api-key",
		Usage:   "API key of the model server; better given as PROMPTMILL_API_KEY",
		Sources: flagEnv("api-key"),
	}
}

func modelCAFlag() cli.Flag {
	return &cli.StringFlag{
		Name:    "model-ca",
		Usage:   "certificates (PEM `FILE`) to trust for https model servers, besides the system's",
		Sources: flagEnv("model-ca"),
	}
}

// serverOptions are what the flags say of every model server.
func serverOptions(c *cli.Command, log zerolog.Logger) ([]modelserver.Option, error) {
	options := []modelserver.Option{modelserver.WithLog(log)}
	file := c.String("model-ca")
	if file == "" {
		return options, nil
	}

	text, err := os.ReadFile(file)
	if err != nil {
		return nil, exit.Usage("", "--model-ca %s: %w", file, unwrapPath(err))
	}

	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // this system has none
	}

	if !roots.AppendCertsFromPEM(text) {
		return nil, exit.Usage("it is the file that begins with -----BEGIN CERTIFICATE-----",
			"--model-ca %s: there is no certificate in it", file)
	}

	return append(options, modelserver.WithRoots(roots)), nil
}

// checkModelFlags refuses values that make no sense. urls are what --url names.
func checkModelFlags(c *cli.Command, urls ...string) error {
	if err := checkServerFlags(c, urls); err != nil {
		return err
	}

	for _, name := range []string{"concurrency", "max-concurrency", "attempts"} {
		if c.Int(name) < 1 && (name != "concurrency" || c.IsSet(name)) {
			return exit.Usage("", "--%s %d: must be at least 1", name, c.Int(name))
		}
	}

	if c.IsSet("concurrency") && c.IsSet("max-concurrency") {
		return exit.Usage("leave out one of them", "--concurrency fixes what --max-concurrency bounds")
	}

	for _, name := range []string{"timeout", "stall", "grace"} {
		if c.Duration(name) <= 0 {
			return exit.Usage("", "--%s %s: must be more than 0", name, c.Duration(name))
		}
	}

	if c.Bool("sim") && (c.IsSet("url") || c.IsSet("exec")) {
		return exit.Usage("leave out one of them", "--sim excludes --url and --exec")
	}

	if c.IsSet("exec") && strings.TrimSpace(c.String("exec")) == "" {
		return exit.Usage(`for example --exec "vllm serve MODEL"`, "--exec: there is no command")
	}

	return nil
}

// checkServerFlags refuses what cannot be a model server, a key or its certificates.
func checkServerFlags(c *cli.Command, urls []string) error {
	if _, err := modelserver.CleanKey(c.String("api-key")); err != nil {
		return exit.Usage("", "--api-key or PROMPTMILL_API_KEY: %w", err)
	}

	named := map[string]bool{}
	for _, url := range urls {
		s, err := modelserver.New(url, "")
		if err != nil {
			return exit.Usage("", "--url: %w", err)
		}

		s.Close()
		if named[s.URL()] {
			return exit.Usage("name each model server once", "--url %s is given twice", s.URL())
		}

		named[s.URL()] = true
	}

	_, err := serverOptions(c, zerolog.Nop())

	return err
}

// newLimiter is the limiter that the flags want, for one of some model servers. It has no
// more requests at once than this process may have connections.
func newLimiter(c *cli.Command, servers int, log zerolog.Logger) *limit.Limiter {
	most := maxConnections(c.Bool("sim")) / servers
	if n := c.Int("concurrency"); n > 0 {
		if n > most {
			log.Warn().Int("concurrency", n).Int("at_once", most).Msg(
				"this process may not open as many files as that needs; having fewer requests at once (ulimit -n raises that)",
			)
		}
		return limit.Fixed(min(n, most))
	}

	return limit.New(limit.Config{Max: min(c.Int("max-concurrency"), most)})
}

// filesAside is how many files are kept for all but requests: connections to the bus, its
// store, the journal and the outputs.
const filesAside = 64

// maxConnections is how many connections to model servers this process can have. Each takes
// two files where the server is simulated, and so in this process.
func maxConnections(simulated bool) int {
	var allowed syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &allowed); err != nil {
		return limit.DefaultMax
	}

	open := 0
	if list, err := os.ReadDir("/dev/fd"); err == nil {
		open = len(list)
	}

	most := int(min(allowed.Cur, 1<<20))
	left := most - open - min(filesAside, most/4)
	if simulated {
		left /= 2
	}

	return max(1, left)
}

// models are the model servers that a command works with.
type models struct {
	servers []*modelserver.Server
	names   []*serverName // of those that were named, where each address is a server
	key     string
	options []modelserver.Option
	process *supervise.Process // of the only server, if it is ours
	log     string             // of the process
	sim     *simServer
	cards   *gpu.Watch

	stop    context.CancelFunc
	running sync.WaitGroup
	ended   chan error // gets what ended the process
}

// errNoModels says that no model server was found on this machine.
var errNoModels = errors.New("no model server found")

// openModels starts the simulated model server, or the one of --exec, or takes those
// of the URLs, or looks for some on this machine. It returns an error that wraps
// errNoModels if there is none.
func openModels(
	ctx context.Context, c *cli.Command, urls []string, state string, simulated []string, log zerolog.Logger,
) (*models, error) {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	m := &models{stop: stop, ended: make(chan error, 1), cards: gpu.New(log)}
	if err := m.open(ctx, running, c, urls, state, simulated, log); err != nil {
		m.close()
		return nil, err
	}

	m.running.Go(func() {
		if err := m.cards.Run(running); errors.Is(err, gpu.ErrNone) {
			log.Info().Err(err).Msg("no GPU readings")
		} else if err != nil {
			log.Warn().Err(err).Msg("no GPU readings")
		}
	})

	return m, nil
}

func (m *models) open(
	ctx, running context.Context, c *cli.Command, urls []string, state string, simulated []string, log zerolog.Logger,
) error {
	key := c.String("api-key")
	options, err := serverOptions(c, log)
	if err != nil {
		return err
	}

	switch {
	case c.Bool("sim"):
		cfg, err := simConfig(c, simulated)
		if err != nil {
			return err
		}

		if m.sim, err = startSim("127.0.0.1:0", cfg); err != nil {
			return err
		}

		urls = []string{m.sim.url}
	case c.IsSet("exec"):
		if len(urls) > 1 {
			return exit.Usage("give the one at which the command's server answers",
				"--exec starts one model server, and there are %d --url", len(urls))
		}

		if len(urls) == 0 {
			urls = []string{execURL(c.String("exec"))}
		}
	case len(urls) == 0:
		found, tried := modelserver.Find(ctx, key, options...)
		m.servers = found
		if len(found) == 0 {
			return exit.Unreachable(fmt.Errorf("%w: tried %s", errNoModels, strings.Join(tried, ", ")),
				`start one, name it with --url, have it started with --exec "vllm serve MODEL", or try --sim`)
		}

		return nil
	}

	m.key, m.options = key, options
	each := c.Bool("each-address") && !c.Bool("sim") && !c.IsSet("exec")
	for _, url := range urls {
		if err := m.add(ctx, url, each); err != nil {
			return err // checked before
		}
	}

	if c.IsSet("exec") {
		return m.start(ctx, running, c.String("exec"), state, log)
	}

	return nil
}

// add adds the model server at a URL, or, where each address is one, those of the name in it. A
// name whose addresses cannot be found is one server, which is waited for.
func (m *models) add(ctx context.Context, url string, each bool) error {
	var addresses []netip.Addr
	if each {
		addresses, _ = modelserver.LookupAddresses(ctx, url)
	}
	if len(addresses) < 2 {
		addresses = []netip.Addr{{}}
	}

	n := &serverName{url, map[netip.Addr]*modelserver.Server{}, map[netip.Addr]int{}}
	for _, at := range addresses {
		s, err := m.atAddress(url, at)
		if err != nil {
			return err
		}
		n.servers[at] = s
		m.servers = append(m.servers, s)
	}

	if each {
		m.names = append(m.names, n)
	}

	return nil
}

// atAddress is the model server at a URL, at one address of its name if that is valid.
func (m *models) atAddress(url string, at netip.Addr) (*modelserver.Server, error) {
	options := m.options
	if at.IsValid() {
		options = append(slices.Clone(options), modelserver.WithAddress(at))
	}
	return modelserver.New(url, m.key, options...)
}

// start starts the model server of --exec.
func (m *models) start(ctx, running context.Context, command, state string, log zerolog.Logger) error {
	if _, err := m.servers[0].Probe(ctx); !errors.Is(err, modelserver.ErrUnreachable) {
		return exit.Usage("stop it, or leave out --exec to use it",
			"a server answers at %s already", m.servers[0].URL())
	}

	if err := makeState(filepath.Dir(state), state); err != nil {
		return err
	}

	m.log = filepath.Join(state, "server.log")
	m.process = supervise.New(supervise.Config{
		Command: pinPort(command),
		LogFile: m.log,
		Log:     log,
		Ready: func(ctx context.Context) error {
			_, err := m.servers[0].Probe(ctx)
			if errors.Is(err, modelserver.ErrUnreachable) {
				return err
			}
			return nil
		},
	})

	m.running.Go(func() { m.ended <- m.process.Run(running) })

	return nil
}

// ready waits until a server takes requests, while one says that it loads, and shows a clock.
// It returns what all of them have that take requests by then.
func (m *models) ready(ctx context.Context, screen *screen) (modelserver.Info, error) {
	begin, shown := time.Now(), time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()

	for {
		info, err := m.look(ctx)
		waits := errors.Is(err, modelserver.ErrLoading) ||
			m.process != nil && errors.Is(err, modelserver.ErrUnreachable)
		if !waits {
			return info, err
		}

		select {
		case err := <-m.ended:
			return info, exit.Unreachable(err, "fix the command of --exec; its whole log is "+shorten(m.log))
		case <-ctx.Done():
			return info, context.Cause(ctx)
		case now := <-tick.C:
			what := "loading"
			if !errors.Is(err, modelserver.ErrLoading) {
				what = "loading: nothing answers at " + m.servers[0].URL() + " yet,"
			}
			screen.clock(what, now.Sub(begin), &shown)
		}
	}
}

// look asks all servers what they have. The error is that of a server that answers if there is
// one, or of one that loads, or else of the first.
func (m *models) look(ctx context.Context) (modelserver.Info, error) {
	infos, errs := make([]modelserver.Info, len(m.servers)), make([]error, len(m.servers))
	var looks sync.WaitGroup
	for i, s := range m.servers {
		looks.Go(func() { infos[i], errs[i] = s.Probe(ctx) })
	}

	looks.Wait()

	var answered []modelserver.Info
	var silent error // of a server that answers without saying what it has
	for i, err := range errs {
		if !errors.Is(err, modelserver.ErrUnreachable) {
			answered = append(answered, infos[i])
			silent = cmp.Or(silent, err)
		}
	}

	if len(answered) > 0 {
		return modelserver.MergeInfos(answered), silent
	}

	if i := slices.IndexFunc(errs, func(err error) bool { return errors.Is(err, modelserver.ErrLoading) }); i >= 0 {
		return infos[i], errs[i]
	}

	if len(errs) > 1 {
		return infos[0], fmt.Errorf("%w; none of the %d servers answers", errs[0], len(errs))
	}

	return infos[0], errs[0]
}

// keepFirst lets go of all servers but the first.
func (m *models) keepFirst() {
	for _, s := range m.servers[1:] {
		s.Close()
	}
	m.servers = m.servers[:1]
}

// inWords is the model servers in words.
func (m *models) inWords() string {
	const most = 3 // that are named
	var flavours, urls []string
	for _, s := range m.servers {
		if f := s.Flavour(); f != "" && !slices.Contains(flavours, f) {
			flavours = append(flavours, f)
		}
		urls = append(urls, s.URL())
	}

	what := "server at "
	if len(urls) > 1 {
		what = "servers at "
	}

	return strings.TrimSpace(strings.Join(flavours, " and ") + " " + what + few(urls, most))
}

// follow says how long the model server loads, and ends with an error when it does not
// start, until ctx ends.
func (m *models) follow(ctx context.Context, w *worker.Worker, screen *screen) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()

	shown := time.Now()
	for {
		select {
		case err := <-m.ended:
			if err != nil {
				return exit.Unreachable(err, "fix the command of --exec; its whole log is "+shorten(m.log))
			}
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if why, since := w.Waiting(); why == "loading" {
				screen.clock(why, now.Sub(since), &shown)
			}
		}
	}
}

// close stops what was started.
func (m *models) close() {
	m.stop()
	m.running.Wait()

	for _, s := range m.servers {
		s.Close()
	}

	if m.sim != nil {
		m.sim.stop()
	}
}
