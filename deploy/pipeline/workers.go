package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/metrics"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/gpu"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/sim"
)

// WorkerConfig has the settings of workers for requests at their model servers.
type WorkerConfig struct {
	// Concurrency is the number of requests in flight at each model server. Defaults to 0: each
	// worker finds it.
	Concurrency int
	// MaxConcurrency is the largest number that a worker tries. Defaults to limit.DefaultMax.
	MaxConcurrency int
	// Forget has each worker find the number of requests in flight from the start, as at a server that
	// it has not met. Defaults to false: it begins with the number that was found at the URL before.
	Forget bool
	// Attempts is the maximum number of tries per request. A 429, 503 or 529 counts as a
	// quarter. Defaults to 5.
	Attempts int
	// Timeout is the longest time of one attempt. Defaults to 30 minutes.
	Timeout time.Duration
	// Stall is the time without any progress after which a model server counts as hung. Defaults
	// to 5 minutes.
	Stall time.Duration
	// Grace is the time to finish requests in flight after a stop. Defaults to 30 s.
	Grace time.Duration
}

// Validate returns an error that names the field of a value that cannot be used.
func (c WorkerConfig) Validate() error {
	for name, n := range map[string]int{
		"Concurrency":    c.Concurrency,
		"MaxConcurrency": c.MaxConcurrency,
		"Attempts":       c.Attempts,
	} {
		if n < 0 {
			return fmt.Errorf("pipeline: WorkerConfig.%s is %d, must not be negative", name, n)
		}
	}

	for name, d := range map[string]time.Duration{"Timeout": c.Timeout, "Stall": c.Stall, "Grace": c.Grace} {
		if d < 0 {
			return fmt.Errorf("pipeline: WorkerConfig.%s is %s, must not be negative", name, d)
		}
	}

	return nil
}

// String describes how many requests a model server gets at once.
func (c WorkerConfig) String() string {
	if c.Concurrency > 0 {
		return terminal.FormatCount(c.Concurrency) + " requests at once"
	}
	return "as many requests at once as it can use"
}

// newLimiter returns the limiter of one of some model servers. It has no more requests in flight
// than this process may have connections.
func (c WorkerConfig) newLimiter(servers *modelservers.Set, log zerolog.Logger) *limit.Limiter {
	most := maxConnections(servers.Simulated()) / len(servers.Servers)
	if n := c.Concurrency; n > 0 {
		if n > most {
			log.Warn().Int("concurrency", n).Int("at_once", most).Msg(
				"this process may not open enough files for that; running fewer requests at once (ulimit -n raises the limit)",
			)
		}
		return limit.Fixed(min(n, most))
	}

	ceiling := c.MaxConcurrency
	if ceiling == 0 {
		ceiling = limit.DefaultMax
	}

	return limit.New(limit.Config{Max: min(ceiling, most)})
}

// reservedFiles is the number of files that are not for requests: connections to the bus, its
// store, the journal and the outputs.
const reservedFiles = 64

// maxConnections returns how many connections to model servers this process can have. Each takes
// two files where the server is simulated, and so in this process.
func maxConnections(simulated bool) int {
	allowed, err := files.MostOpen()
	if err != nil || allowed == 0 {
		return limit.DefaultMax
	}

	open := 0
	if list, err := os.ReadDir("/dev/fd"); err == nil {
		open = len(list)
	}

	most := int(min(allowed, 1<<20))
	left := most - open - min(reservedFiles, most/4)
	if simulated {
		left /= 2
	}

	return max(1, left)
}

// memoryFile is the file in the state folder that keeps how many requests in flight model servers
// were found to take.
const memoryFile = "servers.json"

// newConfig returns the configuration of a worker at a server, without its bus. state is the state
// folder.
func (c WorkerConfig) newConfig(
	servers *modelservers.Set, server *modelserver.Server, state string, log zerolog.Logger,
) worker.Config {
	var memory *limit.Memory
	if !servers.Simulated() && !c.Forget { // the URL of a simulated one differs each time
		memory = limit.NewMemory(filepath.Join(state, memoryFile))
	}

	return worker.Config{
		Server:   server,
		Limiter:  c.newLimiter(servers, log),
		Process:  servers.Process(server),
		Cards:    func() []gpu.Card { return servers.Cards(server) },
		Name:     HostName(),
		Host:     HostName(),
		Memory:   memory,
		Attempts: c.Attempts,
		Timeout:  c.Timeout,
		Stall:    c.Stall,
		Grace:    c.Grace,
		Log:      log,
	}
}

// workerName returns the name of the worker at the i-th of some servers.
func workerName(name string, i, servers int) string {
	if servers == 1 {
		return name
	}
	return fmt.Sprintf("%s-%d", name, i+1)
}

// lookUpEvery is the interval at which a pool looks up the names of its model servers.
const lookUpEvery = 10 * time.Second

// WorkersConfig describes the workers to run and their bus.
type WorkersConfig struct {
	// Bus is the bus that has the runs. Required.
	Bus *busconn.Connection
	// Servers are the model servers: each gets a worker. Required.
	Servers *modelservers.Set
	// Workers has the settings of the workers.
	Workers WorkerConfig
	// Name is the name of the worker; workers at several servers get a number each. Defaults to the
	// host's name.
	Name string
	// State is the state folder, which keeps measurements of the servers. Required.
	State string
	// Version is the version of the program, for announcements.
	Version string
	// Metrics, if not nil, exports the counters of the workers, and the disk of the state folder.
	Metrics *metrics.Exporter
	// Observe, if not nil, returns the observer of the requests at a model server; nil: none.
	Observe func(*modelserver.Server) worker.Observer
	// Leave, if not nil, lets all workers leave at a departure that it delivers, as
	// [worker.Worker.Leave] does, also while they finish what is in flight after the end of the context.
	// RunWorkers returns nil when all have left. Closing it does nothing.
	Leave <-chan worker.Departure
	// Log gets warnings and errors. The zero value discards them.
	Log zerolog.Logger
	// Hooks report the progress of the workers.
	Hooks Hooks
}

// Validate returns an error that names the field of a value that cannot be used.
func (c WorkersConfig) Validate() error {
	switch {
	case c.Bus == nil:
		return errors.New("pipeline: WorkersConfig.Bus is required")
	case c.Servers == nil:
		return errors.New("pipeline: WorkersConfig.Servers is required")
	case c.State == "":
		return errors.New("pipeline: WorkersConfig.State is required")
	}

	return c.Workers.Validate()
}

// RunWorkers runs a worker at each model server for all runs on a bus, until ctx ends. Servers come
// and go with the addresses of the names in their URLs.
func RunWorkers(ctx context.Context, cfg WorkersConfig) error {
	if err := cfg.Validate(); err != nil {
		return err
	}

	cfg.Name = cmp.Or(cfg.Name, HostName())
	cfg.Metrics.SetFolder(metrics.FolderState, cfg.State)
	p := &workerPool{
		WorkersConfig: cfg,
		stop:          map[*modelserver.Server]context.CancelFunc{},
		notices:       map[string]*worker.Notices{},
	}

	return p.run(ctx)
}

// workerPool is one call of [RunWorkers].
type workerPool struct {
	WorkersConfig

	group   *errgroup.Group
	started int                        // so far
	notices map[string]*worker.Notices // of each server, by its URL: it may go and come again
	stop    map[*modelserver.Server]context.CancelFunc
	leaving leavingWorkers
}

// run runs the workers until ctx ends.
func (p *workerPool) run(ctx context.Context) error {
	p.group, ctx = errgroup.WithContext(ctx)

	ctx, end := context.WithCancel(ctx)
	defer end()

	p.leaving.onAllLeft = end

	for i, server := range p.Servers.Servers {
		p.startWorker(ctx, server, workerName(p.Name, i, len(p.Servers.Servers)))
	}

	p.group.Go(func() error { return p.followNames(ctx) })

	// A departure also bounds what the workers finish after the end of ctx.
	leaving, endLeaving := context.WithCancel(context.WithoutCancel(ctx))
	var follow sync.WaitGroup
	follow.Go(func() { p.leaving.follow(leaving, p.Leave) })
	defer follow.Wait()
	defer endLeaving()

	return p.group.Wait()
}

// startWorker starts the worker of a model server. It ends with ctx, or when the server goes.
func (p *workerPool) startWorker(ctx context.Context, server *modelserver.Server, name string) {
	log := p.Log.With().Str("server", server.URL()).Logger()
	cfg := p.Workers.newConfig(p.Servers, server, p.State, log)
	cfg.JS, cfg.Name, cfg.Version = p.Bus.JS, name, p.Version
	if p.Observe != nil {
		cfg.Observer = p.Observe(server)
	}

	if p.notices[server.URL()] == nil {
		p.notices[server.URL()] = &worker.Notices{}
	}

	cfg.Notices = p.notices[server.URL()]
	at := server.URL()
	if gpus := p.Servers.GPUs(server); gpus != "" {
		at += " on GPU " + gpus
	}
	p.Hooks.printf("worker %s: bus %s, model server %s, %s", cfg.Name, p.Bus.Name, at, p.Workers)

	shown := "" // OnInfo is never called twice at a time
	cfg.OnInfo = func(info modelserver.Info) {
		if text := describeModelServer(info); text != shown {
			shown = text
			p.Hooks.printf("worker %s: %s", cfg.Name, text)
		}
	}

	w, err := worker.New(cfg)
	if err != nil {
		p.group.Go(func() error { return err })
		return
	}

	remove := p.Metrics.AddWorker(progress.LocalWorker{Name: cfg.Name, Limiter: cfg.Limiter, Worker: w})

	working, stop := context.WithCancel(ctx)
	p.started++
	p.stop[server] = stop

	p.leaving.add(w)

	p.group.Go(func() error {
		defer stop()
		err := w.Run(working)
		p.leaving.remove(w)
		server.Close()
		if ctx.Err() == nil { // the server has gone
			remove()
		}
		return err
	})

	p.group.Go(func() error { return p.Servers.Watch(working, w, server, p.Hooks.Loading) })
}

// describeModelServer describes a model server that answers: its models and its slots.
func describeModelServer(info modelserver.Info) string {
	text := "the model server answers"
	if kind := strings.TrimSpace(sim.NameKind(info.Flavour, info.Version) + " " + info.Version); kind != "" {
		text = kind + " answers"
	}

	switch names := info.ModelNames(); {
	case names == nil:
		text += ", and lists no models: any is tried"
	case len(names) == 0:
		text += ", and has no model"
	default:
		text += " with " + terminal.JoinFew(names, 3)
	}

	if len(info.Models) == 1 && info.Models[0].ContextLength > 0 {
		text += fmt.Sprintf(", %s tokens of context", terminal.FormatCount(info.Models[0].ContextLength))
	}

	if info.Engines > 1 {
		text += fmt.Sprintf(", %d engines", info.Engines)
	}

	if info.Slots > 0 {
		text += fmt.Sprintf(", %s slots", terminal.FormatCount(info.Slots))
	}

	return text
}

// followNames looks up the names of the model servers again and again, until ctx ends.
func (p *workerPool) followNames(ctx context.Context) error {
	tick := time.NewTicker(lookUpEvery)
	defer tick.Stop()

	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}

		for _, name := range p.Servers.Names {
			found, err := modelserver.LookupAddresses(ctx, name.URL)
			if err != nil {
				continue // the servers may be there still
			}

			if err := p.applyChanges(ctx, name, found); err != nil {
				return err
			}
		}
	}
}

// applyChanges starts the workers of servers that have come, and stops those of servers that have
// gone, when some addresses of a name are found.
func (p *workerPool) applyChanges(ctx context.Context, name *modelservers.Name, found []netip.Addr) error {
	come, gone := name.Changes(found)

	for _, address := range come {
		server, err := p.Servers.Connect(name.URL, address)
		if err != nil {
			return err
		}
		name.Servers[address] = server
		p.startWorker(ctx, server, fmt.Sprintf("%s-%d", p.Name, p.started+1))
	}

	for _, address := range gone {
		server := name.Servers[address]
		delete(name.Servers, address)

		why := "is no address of its name any more"
		if !address.IsValid() {
			why = "has several addresses now"
		}

		p.Hooks.printf("%s %s; its worker finishes its requests in flight", server.URL(), why)
		p.stop[server]()
		delete(p.stop, server)
	}

	return nil
}
