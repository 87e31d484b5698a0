// Package modelservers opens the model servers that a process works with. [Open] takes named
// servers, starts some from commands, starts a simulated one, or looks for some on this
// machine:
//
//	Config ──Open──> Set ──Servers──> one worker each
//	                  ├── Process      of each server that Config.Commands started, kept running
//	                  ├── simulated server, if Config.Sim wants one
//	                  └── GPU readings of this host, for the workers
//
// A [Set] owns all of that: [Set.Close] stops the processes that Open started and waits for
// them. [Set.AwaitReady] waits while servers load. One that does not start is tried again later,
// as long as another one works; [Set.Watch] ends with an error when the last one gives up. Where
// a name in a URL has several addresses, each address is a server of its own; [Set.Names] has the
// names, so that a caller can look them up again as servers come and go.
package modelservers

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/gpu"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/sim"
	"github.com/promptmill/promptmill/worker/supervise"
)

// ErrNone is returned when no model server was found on this machine.
var ErrNone = errors.New("no model server found")

// Config describes the model servers to use.
type Config struct {
	// URLs are OpenAI-compatible model servers. Defaults to the servers found at the usual
	// ports of this machine, or to those of Commands, which exclude it.
	URLs []string
	// OneAddress takes the name in a URL for one server or load balancer. Defaults to false:
	// each private address of the name is a server.
	OneAddress bool
	// APIKey is sent to the servers. Defaults to none.
	APIKey string
	// Roots are the certificates to trust for https. Defaults to the system's.
	Roots *x509.CertPool
	// Commands start model servers, which are started again when they end. Defaults to none: the
	// servers run already.
	Commands []Command
	// StateDir is the folder for the logs of the servers of Commands. Required with Commands. It lies
	// in a state folder.
	StateDir string
	// Sim, if not nil, starts a simulated model server, and excludes URLs and Commands.
	Sim *sim.Config
	// Log gets warnings. The zero value discards them.
	Log zerolog.Logger
}

// Validate returns an error that names the field of a value that cannot be used.
func (c Config) Validate() error {
	if _, err := modelserver.CleanKey(c.APIKey); err != nil {
		return fmt.Errorf("modelservers: Config.APIKey: %w", err)
	}

	for _, url := range c.URLs {
		s, err := modelserver.New(url, "")
		if err != nil {
			return fmt.Errorf("modelservers: Config.URLs: %w", err)
		}
		s.Close()
	}

	switch {
	case c.Sim != nil && (len(c.URLs) > 0 || len(c.Commands) > 0):
		return errors.New("modelservers: Config.Sim excludes Config.URLs and Config.Commands")
	case len(c.Commands) > 0 && len(c.URLs) > 0:
		return errors.New("modelservers: Config.Commands excludes Config.URLs")
	case len(c.Commands) > 0 && c.StateDir == "":
		return errors.New("modelservers: Config.StateDir is required with Config.Commands")
	}

	return c.CheckCommands()
}

// CheckCommands returns the error of commands that cannot be started together.
func (c Config) CheckCommands() error {
	_, err := planStarts(c.Commands)
	return err
}

// Options returns the options of each server.
func (c Config) Options() []modelserver.Option {
	options := []modelserver.Option{modelserver.WithLog(c.Log)}
	if c.Roots != nil {
		options = append(options, modelserver.WithRoots(c.Roots))
	}
	return options
}

// Loading is called about once a second while a server loads: with its URL, its activity in words,
// and the time since that began.
type Loading func(url, what string, waited time.Duration)

// Set is the model servers of a process.
type Set struct {
	// Servers are the servers that are used, in the order of the URLs.
	Servers []*modelserver.Server
	// Names are the names in the URLs whose addresses are servers.
	Names []*Name

	cfg     Config
	sim     *SimServer
	cards   *gpu.Watch
	started []*startedServer

	stop    context.CancelFunc
	running sync.WaitGroup
	ended   chan error // gets the error of the last server that gives up
}

// Open opens the servers. The end of ctx ends the search for them, not the servers. The error
// wraps [ErrNone] if there is none.
func Open(ctx context.Context, cfg Config) (*Set, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}

	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Set{
		cfg:   cfg,
		stop:  stop,
		ended: make(chan error, 1),
		cards: gpu.New(cfg.Log),
	}
	if err := s.open(ctx, running); err != nil {
		s.Close()
		return nil, err
	}

	s.running.Go(func() {
		if err := s.cards.Run(running); errors.Is(err, gpu.ErrNone) {
			cfg.Log.Info().Err(err).Msg("no GPU readings")
		} else if err != nil {
			cfg.Log.Warn().Err(err).Msg("no GPU readings")
		}
	})

	return s, nil
}

// open finds or starts the servers. The servers that it starts end with running.
func (s *Set) open(ctx, running context.Context) error {
	urls := s.cfg.URLs
	switch {
	case len(s.cfg.Commands) > 0:
		return s.startCommands(ctx, running)
	case s.cfg.Sim != nil:
		server, err := StartSim("127.0.0.1:0", sim.New(*s.cfg.Sim))
		if err != nil {
			return err
		}
		s.sim, urls = server, []string{server.URL}
	case len(urls) == 0:
		found, tried := modelserver.Find(ctx, s.cfg.APIKey, s.cfg.Options()...)
		s.Servers = found
		if len(found) == 0 {
			return exit.Unreachable(fmt.Errorf("%w: tried %s", ErrNone, strings.Join(tried, ", ")),
				`start one, name it with --url, have it started with --exec "vllm serve MODEL", or try --sim`)
		}

		return nil
	}

	if s.cfg.Sim != nil {
		s.cfg.OneAddress = true // a server of this machine
	}

	for _, url := range urls {
		name, servers, err := s.cfg.Resolve(ctx, url)
		if err != nil {
			return err
		}

		s.Servers = append(s.Servers, servers...)
		if !s.cfg.OneAddress {
			s.Names = append(s.Names, name)
		}
	}

	return nil
}

// Resolve returns the model server at a URL, or the servers at the addresses of the name in it,
// unless Config.OneAddress is set. A name whose addresses cannot be found is one server. The
// caller closes the servers.
func (c Config) Resolve(ctx context.Context, url string) (*Name, []*modelserver.Server, error) {
	var addresses []netip.Addr
	if !c.OneAddress {
		addresses, _ = modelserver.LookupAddresses(ctx, url)
	}
	if len(addresses) < 2 {
		addresses = []netip.Addr{{}}
	}

	name := NewName(url)
	var servers []*modelserver.Server
	for _, address := range addresses {
		server, err := c.connect(url, address)
		if err != nil {
			return nil, nil, err
		}
		name.Servers[address] = server
		servers = append(servers, server)
	}

	return name, servers, nil
}

// connect returns the model server at a URL, at one address of its name if that is valid.
func (c Config) connect(url string, address netip.Addr) (*modelserver.Server, error) {
	options := c.Options()
	if address.IsValid() {
		options = append(options, modelserver.WithAddress(address))
	}
	return modelserver.New(url, c.APIKey, options...)
}

// Connect returns the model server at an address of the name in a URL. The caller closes it.
func (s *Set) Connect(url string, address netip.Addr) (*modelserver.Server, error) {
	return s.cfg.connect(url, address)
}

// AwaitReady waits until a server takes requests, while one loads, and reports that to loading if
// it is not nil. Of servers that are started it waits for one of each command that has not given up. It
// returns the merged info of all servers that take requests by then.
func (s *Set) AwaitReady(ctx context.Context, loading Loading) (modelserver.Info, error) {
	begin := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()

	for {
		infos, errs := s.lookAtAll(ctx)
		info, err := judgeLooks(infos, errs)
		missing := s.missingServer(errs)
		waits := missing != nil || errors.Is(err, modelserver.ErrLoading) ||
			s.Started() && errors.Is(err, modelserver.ErrUnreachable)
		if !waits {
			return info, err
		}

		select {
		case err := <-s.ended:
			return info, s.commandError(err)
		case <-ctx.Done():
			return info, context.Cause(ctx)
		case now := <-tick.C:
			if loading != nil {
				url, what := s.describeLoading(missing, err)
				loading(url, what, now.Sub(begin))
			}
		}
	}
}

// describeLoading returns which server loads, and how that shows. missing is one of those that are
// started; nil: none is awaited.
func (s *Set) describeLoading(missing *startedServer, err error) (url, what string) {
	if url = s.Servers[0].URL(); missing != nil {
		url = missing.server.URL()
	}

	switch {
	case errors.Is(err, modelserver.ErrLoading):
		return url, "loading"
	case errors.Is(err, modelserver.ErrFailing):
		return url, "loading: " + url + " answers with errors only so far,"
	default:
		return url, "loading: nothing answers at " + url + " yet,"
	}
}

// commandError is the error of a started server that has given up, which names its log.
func (s *Set) commandError(err error) error {
	return exit.Unreachable(err, "fix the command of --exec")
}

// lookAtAll asks all servers for their models and limits.
func (s *Set) lookAtAll(ctx context.Context) ([]modelserver.Info, []error) {
	infos, errs := make([]modelserver.Info, len(s.Servers)), make([]error, len(s.Servers))
	var looks sync.WaitGroup
	for i, server := range s.Servers {
		looks.Go(func() { infos[i], errs[i] = server.Probe(ctx) })
	}

	looks.Wait()

	return infos, errs
}

// judgeLooks returns the merged info of the servers that answer. It returns the error of a server that
// answers, else of a server that loads, else of the first server.
func judgeLooks(infos []modelserver.Info, errs []error) (modelserver.Info, error) {
	var answered []modelserver.Info
	var silent error // of a server that answers without a list of models
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

// KeepFirst closes all servers but the first.
func (s *Set) KeepFirst() {
	for _, server := range s.Servers[1:] {
		server.Close()
	}
	s.Servers = s.Servers[:1]
}

// Simulated reports whether the server is a simulated one of this process.
func (s *Set) Simulated() bool { return s.sim != nil }

// Process returns the process of a server; nil: it is not ours.
func (s *Set) Process(server *modelserver.Server) *supervise.Process {
	if started := s.startedAs(server); started != nil {
		return started.process
	}
	return nil
}

// Started reports whether Config.Commands started the servers.
func (s *Set) Started() bool { return len(s.started) > 0 }

// GPUs returns the cards that a server was started with, as [Command].GPUs; empty: unknown.
func (s *Set) GPUs(server *modelserver.Server) string {
	if started := s.startedAs(server); started != nil {
		return started.gpus
	}
	return ""
}

// Cards returns the cards of a server, as they are now: those that it was started with, or all of this
// host if they are not known.
func (s *Set) Cards(server *modelserver.Server) []gpu.Card {
	cards, started := s.cards.Now(), s.startedAs(server)
	if started == nil {
		return cards
	}

	isMixed := slices.ContainsFunc(cards, func(c gpu.Card) bool { return c.Name != cards[0].Name })
	if isMixed && !started.isOrdered {
		return cards // CUDA may have other numbers
	}

	return gpu.Select(cards, started.gpus)
}

// startedAs returns what is known of a server that was started; nil: it was not.
func (s *Set) startedAs(server *modelserver.Server) *startedServer {
	for _, started := range s.started {
		if started.server == server {
			return started
		}
	}
	return nil
}

// String describes the servers: their kinds and addresses.
func (s *Set) String() string {
	if s.sim != nil {
		return "promptmill's simulated server"
	}

	const shown = 3 // URLs
	var flavours, urls []string
	for _, server := range s.Servers {
		if f := server.Flavour(); f != "" && !slices.Contains(flavours, f) {
			flavours = append(flavours, f)
		}
		urls = append(urls, server.URL())
	}

	what := "server at "
	if len(urls) > 1 {
		what = "servers at "
	}

	list := strings.Join(urls[:min(len(urls), shown)], ", ")
	if more := len(urls) - shown; more > 0 {
		list = fmt.Sprintf("%s and %d more", list, more)
	}

	return strings.TrimSpace(strings.Join(flavours, " and ") + " " + what + list)
}

// Watch reports to loading, if it is not nil, for how long the server of a worker loads, until ctx
// ends. It returns an error when the last of the servers that were started gives up.
func (s *Set) Watch(ctx context.Context, w *worker.Worker, server *modelserver.Server, loading Loading) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()

	for {
		select {
		case err := <-s.ended:
			return s.commandError(err)
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if why, since := w.Waiting(); why == "loading" && loading != nil {
				loading(server.URL(), why, now.Sub(since))
			}
		}
	}
}

// CloseBy is Close that takes no longer than until a time: what Open started is killed then. The zero
// time is none.
func (s *Set) CloseBy(at time.Time) {
	for _, started := range s.started {
		if started.process != nil {
			started.process.KillBy(at)
		}
	}

	s.Close()
}

// Close stops the processes that Open started, waits for them, and closes the servers.
func (s *Set) Close() {
	s.stop()
	s.running.Wait()

	for _, server := range s.Servers {
		server.Close()
	}

	for _, started := range s.started {
		started.port.release()
	}

	if s.sim != nil {
		s.sim.Stop()
	}
}
