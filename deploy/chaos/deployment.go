package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// deployment is a deployment of real processes.
type deployment struct {
	layout
	shape   shape
	history io.Writer
	begin   time.Time

	programs
	processes      map[string]*process
	links          map[string]*link
	disks          map[string]*disk
	modelAddress   map[string]string
	metricsAddress map[string]string         // of workers
	joins          map[proto.Role]proto.Join // without a cluster
	busAddresses   []string                  // addresses of the bus
	nodesEnv       []string                  // passwords of the users of a cluster

	submitting sync.WaitGroup
	producing  sync.Mutex // held while a producer works
	reading    sync.Once
	stop       context.Context // ends when all is over

	mu                 sync.Mutex
	locks              map[string]*sync.Mutex // of parts to which something happens
	faults             map[string]string      // of model servers
	faultSeeds         map[string]uint64      // with which these come
	submitted          []string               // runs
	incarnations       int                    // of the reader
	afterStoreLoss     []int                  // its incarnations that began after the bus lost its store
	readerCannotFinish bool                   // the bus lost its store, and with it lines that the reader had not read
	files              map[string]int         // that parts may open; 0: as many as usual
	aside              map[string]string      // folders that are away
	changedRuns        int                    // third runs
	foreignShards      int                    // shards that a reader got
	storeLostAt        time.Time              // when the bus last lost its store
	disrupted          disruptions            // events that may have made requests run again
}

// Of the workers: the most requests that they have at a model server, and how long they
// may take to end.
const (
	mostInFlight = 2 * modelSlots
	endTime      = 20 * time.Second
)

func (d *deployment) logf(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.history, "%8s  %s\n", d.elapsed(), fmt.Sprintf(format, args...))
}

func (d *deployment) elapsed() string { return fmt.Sprintf("%.1fs", time.Since(d.begin).Seconds()) }

// start starts all parts but the producers.
func (d *deployment) start(ctx context.Context) error {
	d.stop = ctx
	for _, name := range []string{"logs", "answers", "reader", "nodes", "others", "clocks", "aside"} {
		if err := os.MkdirAll(filepath.Join(d.dir, name), 0o755); err != nil {
			return err
		}
	}

	for _, name := range d.shape.processNames() {
		if err := setClock(d.clockPath(name), 0); err != nil {
			return err
		}
	}

	random := rand.New(rand.NewPCG(d.shape.seed, 2))
	for _, run := range []string{"a", "b"} {
		if err := writeInput(d.inputPath(run), run, d.shape.requests, random); err != nil {
			return err
		}
		if err := writeOther(d.otherInput(run), run, 50); err != nil {
			return err
		}
	}

	var err error
	for name, path := range d.diskPaths() {
		if d.disks[name], err = mountDisk(path); err != nil {
			return err
		}
	}

	d.begin = time.Now()
	if err := d.startBus(ctx); err != nil {
		return err
	}

	if err := d.startModels(ctx); err != nil {
		return err
	}

	return d.startWorkers(ctx)
}

// startBus starts serve, and the nodes if there is to be a cluster.
func (d *deployment) startBus(ctx context.Context) error {
	common := []string{"serve", "--dir", d.outputDir(), "--flush", "300ms", "--state", filepath.Join(d.dir, "state")}
	var goals []string
	if d.shape.nodes == 0 {
		goals = []string{freeAddress()}
		d.addProcess("serve", d.constantArgs(append(common, "--listen", goals[0])...)).runUntil(ctx)
		if err := d.readJoinStrings(ctx); err != nil {
			return err
		}
	} else {
		var routes []string
		for range d.shape.nodes {
			goals, routes = append(goals, freeAddress()), append(routes, freeAddress())
		}

		var err error
		if d.nodesEnv, err = writeNodes(ctx, d.promptmill, filepath.Join(d.dir, "nodes"), goals, routes); err != nil {
			return err
		}

		for _, name := range d.shape.nodeNames() {
			d.addProcess(name, func() (string, []string) {
				return d.self, []string{"nats-server", filepath.Join(d.dir, "nodes", name+".conf")}
			}).runUntil(ctx)
		}
	}

	d.busAddresses = goals
	for _, name := range d.shape.linkNames() {
		if strings.HasSuffix(name, "-bus") {
			l, err := newLink(name, goals...)
			if err != nil {
				return err
			}
			d.links[name] = l
		}
	}

	if d.shape.nodes > 0 {
		d.addProcess("serve", d.constantArgs(append(common, d.busFlags("serve-bus", proto.RoleCollector)...)...)).
			runUntil(ctx)
	}

	reader := d.addProcess("reader", d.constantArgs(append([]string{"tail", "a", "--as", "reader"},
		d.busFlags("reader-bus", proto.RoleReader)...)...))
	reader.works = true
	reader.output = func() (*os.File, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.incarnations++
		return os.Create(d.readerOutput(d.incarnations))
	}

	return nil
}

// readJoinStrings asks serve for the ways in.
func (d *deployment) readJoinStrings(ctx context.Context) error {
	for end := time.Now().Add(30 * time.Second); ; {
		err := error(nil)
		for _, role := range proto.Roles() {
			var text []byte
			if text, err = exec.CommandContext(
				ctx, d.promptmill, "join", string(role), "--state", filepath.Join(d.dir, "state"),
			).Output(); err != nil {
				break
			}

			if d.joins[role], err = proto.ParseJoin(string(text)); err != nil {
				break
			}
		}
		if err == nil {
			return nil
		}

		if time.Now().After(end) {
			return fmt.Errorf("ask serve for the way in: %w", err)
		}

		if err := bus.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// busFlags are the flags with which a command finds the bus over a link.
func (d *deployment) busFlags(link string, role proto.Role) []string {
	if d.shape.nodes == 0 {
		j := d.joins[role]
		j.Addresses = d.links[link].addresses
		return []string{"--join", j.String()}
	}

	user := string(role)
	if link == "serve-bus" {
		user = "owner"
	}

	flags := []string{"--nats", d.links[link].joinURLs("nats://"), "--nats-user", user + ":" + password}
	if link == "serve-bus" || link == "submit-bus" && role == proto.RoleProducer {
		flags = append(flags, "--replicas", fmt.Sprint(d.shape.nodes))
	}

	return flags
}

func (d *deployment) startModels(ctx context.Context) error {
	flavours := []string{"vllm", "sglang", "plain"} // the last one has no load metrics
	for i, name := range d.shape.modelNames() {
		address := freeAddress()
		d.modelAddress[name] = address
		d.addProcess(name, func() (string, []string) {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.self, []string{
				"model-server", address, d.answersPath(name), flavours[i%len(flavours)], d.faults[name],
				fmt.Sprint(d.faultSeeds[name]),
			}
		}).runUntil(ctx)

		var err error
		link := fmt.Sprintf("worker%d-model", i+1)
		if d.links[link], err = newLink(link, address); err != nil {
			return err
		}
	}

	return nil
}

func (d *deployment) startWorkers(ctx context.Context) error {
	for _, name := range d.shape.workerNames() {
		d.metricsAddress[name] = freeAddress()
		d.addProcess(name, d.constantArgs(append([]string{
			"worker", "--name", name, "--url", d.links[name+"-model"].joinURLs("http://"), "--metrics",
			d.metricsAddress[name],
			"--max-concurrency", fmt.Sprint(mostInFlight), "--attempts", "30", "--timeout", "60s", "--stall", "8s",
			"--grace", "5s",
		}, d.busFlags(name+"-bus", proto.RoleWorker)...)...)).runUntil(ctx)
	}

	return nil
}

// constantArgs returns promptmill with the same arguments for each incarnation.
func (d *deployment) constantArgs(args ...string) func() (string, []string) {
	return func() (string, []string) { return d.promptmill, args }
}

// lockOf is held while something happens to a part.
func (d *deployment) lockOf(part string) *sync.Mutex {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locks[part] == nil {
		d.locks[part] = &sync.Mutex{}
	}
	return d.locks[part]
}

// setFaults sets the faults of a model server's next incarnation, and their seed.
func (d *deployment) setFaults(model, faults string, luck uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults[model], d.faultSeeds[model] = faults, luck
}

// addDisruption records a disruption of the paths of answers.
func (d *deployment) addDisruption(h disruption) {
	if len(h.workers)+len(h.models) == 0 {
		return
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	d.disrupted.list = append(d.disrupted.list, h)
}
