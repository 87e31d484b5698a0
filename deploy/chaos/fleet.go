package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// fleet is a deployment of real processes.
type fleet struct {
	shape   shape
	dir     string
	history io.Writer
	begin   time.Time

	programs
	processes      map[string]*process
	links          map[string]*link
	disks          map[string]*disk
	modelAddress   map[string]string
	metricsAddress map[string]string         // of workers
	joins          map[proto.Role]proto.Join // without a cluster
	goals          []string                  // addresses of the bus
	nodesEnv       []string                  // passwords of the users of a cluster

	submitting sync.WaitGroup
	producing  sync.Mutex // held while a producer works
	reading    sync.Once
	stop       context.Context // ends when all is over

	mu        sync.Mutex
	locks     map[string]*sync.Mutex // of parts to which something happens
	faults    map[string]string      // of model servers
	luck      map[string]uint64      // with which these come
	submitted []string               // runs
	lives     int                    // of the reader
	forgot    []int                  // its lives that began after the bus had lost its store
	unread    bool                   // the bus lost its store, and with it what the reader had not read
	files     map[string]int         // that parts may open; 0: as many as usual
	aside     map[string]string      // folders that are away
	changed   int                    // third runs
	overheard int                    // shards that a reader got
	stored    time.Time              // when the bus last lost its store
	did       harmed                 // what may have made requests be run again
}

// Of the workers: the most requests that they have at a model server, and how long they
// may take to end.
const (
	mostInFlight = 2 * modelSlots
	endTime      = 20 * time.Second
)

func (f *fleet) say(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(f.history, "%8s  %s\n", f.elapsed(), fmt.Sprintf(format, args...))
}

func (f *fleet) elapsed() string { return fmt.Sprintf("%.1fs", time.Since(f.begin).Seconds()) }

func (f *fleet) log(name string) string  { return filepath.Join(f.dir, "logs", name+".log") }
func (f *fleet) out() string             { return filepath.Join(f.dir, "out") }
func (f *fleet) state() string           { return filepath.Join(f.dir, "others") }
func (f *fleet) input(run string) string { return filepath.Join(f.dir, run+".jsonl") }
func (f *fleet) answers(m string) string { return filepath.Join(f.dir, "answers", m) }
func (f *fleet) clock(p string) string   { return filepath.Join(f.dir, "clocks", p) }
func (f *fleet) life(n int) string {
	return filepath.Join(f.dir, "reader", fmt.Sprintf("life-%03d.jsonl", n))
}
func (f *fleet) file(run, end string) string { return filepath.Join(f.out(), run+end) }

// store is the folder of the store of serve or a node.
func (f *fleet) store(name string) string {
	if name == "serve" {
		return filepath.Join(f.dir, "state", "serve", "nats")
	}
	return filepath.Join(f.dir, "nodes", name)
}

func (f *fleet) diskPaths() map[string]string {
	return map[string]string{"out": f.out(), "store": filepath.Join(f.dir, "state")}
}

// complete reports whether a run's files are all written.
func (f *fleet) complete(run string) bool {
	_, err := os.Stat(f.file(run, ".meta.json"))
	_, still := os.Stat(f.file(run, ".part.zst"))
	return err == nil && errors.Is(still, os.ErrNotExist)
}

// start starts all parts but the producers.
func (f *fleet) start(ctx context.Context) error {
	f.stop = ctx
	for _, name := range []string{"logs", "answers", "reader", "nodes", "others", "clocks", "aside"} {
		if err := os.MkdirAll(filepath.Join(f.dir, name), 0o755); err != nil {
			return err
		}
	}

	for _, name := range f.shape.processNames() {
		if err := setClock(f.clock(name), 0); err != nil {
			return err
		}
	}

	random := rand.New(rand.NewPCG(f.shape.seed, 2))
	for _, run := range []string{"a", "b"} {
		if err := writeInput(f.input(run), run, f.shape.requests, random); err != nil {
			return err
		}
		if err := writeOther(f.otherInput(run), run, 50); err != nil {
			return err
		}
	}

	var err error
	for name, path := range f.diskPaths() {
		if f.disks[name], err = mountDisk(path); err != nil {
			return err
		}
	}

	f.begin = time.Now()
	if err := f.startBus(ctx); err != nil {
		return err
	}

	if err := f.startModels(ctx); err != nil {
		return err
	}

	return f.startWorkers(ctx)
}

// programs are what a deployment is made of.
type programs struct {
	self, promptmill string
	timeless         error // why no clock can be stepped
}

// copyPrograms puts a promptmill that was built before, and this program for its children,
// where build would put them: what is left of a deployment in the end is known by the path
// of its program.
func copyPrograms(ctx context.Context, promptmill, bin string) (p programs, err error) {
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return p, err
	}

	self, err := os.Executable()
	if err != nil {
		return p, err
	}

	p.self, p.promptmill = filepath.Join(bin, "chaos"), filepath.Join(bin, "promptmill")

	for from, to := range map[string]string{self: p.self, promptmill: p.promptmill} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, data, 0o755)
		}
		if err != nil {
			return p, fmt.Errorf("copy a program: %w", err)
		}
	}

	for _, program := range []string{p.promptmill, p.self} {
		if !canStep(ctx, program) {
			p.timeless = skipped(fmt.Sprintf("steps of the clock, since %s was not built by chaos --build",
				filepath.Base(program)))
		}
	}

	return p, nil
}

// build builds promptmill, and this program for its children, with clocks that can be
// stepped where that is possible.
func build(ctx context.Context, bin string) (p programs, err error) {
	overlays := filepath.Join(bin, "overlay")
	if err := os.MkdirAll(overlays, 0o755); err != nil {
		return p, err
	}

	p.self, p.promptmill = filepath.Join(bin, "chaos"), filepath.Join(bin, "promptmill")

	args := []string{"build", "-o", bin}
	overlay, err := overlayTime(overlays)
	if _, ok := errors.AsType[skipped](err); ok {
		p.timeless = err
	} else if err != nil {
		return p, err
	} else {
		args = append(args, "-overlay", overlay)
	}

	const in = "github.com/promptmill/promptmill/deploy/"
	if out, err := exec.CommandContext(ctx, "go",
		append(args, in+"promptmill", in+"chaos")...).CombinedOutput(); err != nil {
		return p, fmt.Errorf("build promptmill: %w: %s", err, out)
	}

	return p, nil
}

// startBus starts serve, and the nodes if there is to be a cluster.
func (f *fleet) startBus(ctx context.Context) error {
	common := []string{"serve", "--dir", f.out(), "--flush", "300ms", "--state", filepath.Join(f.dir, "state")}
	var goals []string
	if f.shape.nodes == 0 {
		goals = []string{freeAddress()}
		f.process("serve", f.always(append(common, "--listen", goals[0])...)).keep(ctx)
		if err := f.learnJoins(ctx); err != nil {
			return err
		}
	} else {
		var routes []string
		for range f.shape.nodes {
			goals, routes = append(goals, freeAddress()), append(routes, freeAddress())
		}

		var err error
		if f.nodesEnv, err = writeNodes(ctx, f.promptmill, filepath.Join(f.dir, "nodes"), goals, routes); err != nil {
			return err
		}

		for _, name := range f.shape.nodeNames() {
			f.process(name, func() (string, []string) {
				return f.self, []string{"nats-server", filepath.Join(f.dir, "nodes", name+".conf")}
			}).keep(ctx)
		}
	}

	f.goals = goals
	for _, name := range f.shape.linkNames() {
		if strings.HasSuffix(name, "-bus") {
			l, err := newLink(name, goals...)
			if err != nil {
				return err
			}
			f.links[name] = l
		}
	}

	if f.shape.nodes > 0 {
		f.process("serve", f.always(append(common, f.bus("serve-bus", proto.RoleCollector)...)...)).keep(ctx)
	}

	reader := f.process("reader", f.always(append([]string{"tail", "a", "--as", "reader"},
		f.bus("reader-bus", proto.RoleReader)...)...))
	reader.works = true
	reader.output = func() (*os.File, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.lives++
		return os.Create(f.life(f.lives))
	}

	return nil
}

// learnJoins asks serve for the ways in.
func (f *fleet) learnJoins(ctx context.Context) error {
	for end := time.Now().Add(30 * time.Second); ; {
		err := error(nil)
		for _, role := range proto.Roles() {
			var text []byte
			if text, err = exec.CommandContext(
				ctx, f.promptmill, "join", string(role), "--state", filepath.Join(f.dir, "state"),
			).Output(); err != nil {
				break
			}

			if f.joins[role], err = proto.ParseJoin(string(text)); err != nil {
				break
			}
		}
		if err == nil {
			return nil
		}

		if time.Now().After(end) {
			return fmt.Errorf("ask serve for the way in: %w", err)
		}

		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// bus are the flags with which a command finds the bus over a link.
func (f *fleet) bus(link string, role proto.Role) []string {
	if f.shape.nodes == 0 {
		j := f.joins[role]
		j.Addresses = f.links[link].addresses
		return []string{"--join", j.String()}
	}

	user := string(role)
	if link == "serve-bus" {
		user = "owner"
	}

	flags := []string{"--nats", f.links[link].urls("nats://"), "--nats-user", user + ":" + password}
	if link == "serve-bus" || link == "submit-bus" && role == proto.RoleProducer {
		flags = append(flags, "--replicas", fmt.Sprint(f.shape.nodes))
	}

	return flags
}

func (f *fleet) startModels(ctx context.Context) error {
	flavours := []string{"vllm", "sglang", "plain"} // the last one does not tell its load
	for i, name := range f.shape.modelNames() {
		address := freeAddress()
		f.modelAddress[name] = address
		f.process(name, func() (string, []string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.self, []string{
				"model-server", address, f.answers(name), flavours[i%len(flavours)], f.faults[name],
				fmt.Sprint(f.luck[name]),
			}
		}).keep(ctx)

		var err error
		link := fmt.Sprintf("worker%d-model", i+1)
		if f.links[link], err = newLink(link, address); err != nil {
			return err
		}
	}

	return nil
}

func (f *fleet) startWorkers(ctx context.Context) error {
	for _, name := range f.shape.workerNames() {
		f.metricsAddress[name] = freeAddress()
		f.process(name, f.always(append([]string{
			"worker", "--name", name, "--url", f.links[name+"-model"].urls("http://"), "--metrics",
			f.metricsAddress[name],
			"--max-concurrency", fmt.Sprint(mostInFlight), "--attempts", "30", "--timeout", "60s", "--stall", "8s",
			"--grace", "5s",
		}, f.bus(name+"-bus", proto.RoleWorker)...)...)).keep(ctx)
	}

	return nil
}

// always is a promptmill with the same arguments in each life.
func (f *fleet) always(args ...string) func() (string, []string) {
	return func() (string, []string) { return f.promptmill, args }
}

// portRange are the port numbers from which addresses are taken.
type portRange struct {
	first, last uint64
	taken       atomic.Uint64 // how many were, and the place of the first
}

// ports are those of this process. They are not of the numbers that the system gives to
// outgoing connections, which could take one while its server is away.
var ports portRange

func (r *portRange) set(first, last uint64) {
	r.first, r.last = first, last
	r.taken.Store(rand.Uint64N(last - first + 1))
}

// freeAddress is one that nobody listens at, and that was not given of late.
func freeAddress() string {
	for {
		n := ports.first + ports.taken.Add(1)%(ports.last-ports.first+1)
		address := fmt.Sprintf("127.0.0.1:%d", n)
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
}

// lock is held while something happens to a part.
func (f *fleet) lock(part string) *sync.Mutex {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locks[part] == nil {
		f.locks[part] = &sync.Mutex{}
	}
	return f.locks[part]
}

// setFaults sets the faults of a model server's next life, and the seed of when they come.
func (f *fleet) setFaults(model, faults string, luck uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[model], f.luck[model] = faults, luck
}

// The recovery of parts: until a client has found the bus again, until a bus that was away has
// all its clients, and until a cluster has a leader for each stream and consumer.
const (
	recoveryOfLink    = 2 * time.Second
	recoveryOfBus     = 3 * time.Second
	recoveryOfCluster = 5 * time.Second
)

// harmTo says which ways of answers go over a part.
func (s shape) harmTo(part string) (h harm) {
	name, end, _ := strings.Cut(part, "-")
	number := strings.TrimLeft(name, "adelmorkw") // of workerN and modelN
	switch {
	case end == "model", strings.HasPrefix(name, "model"):
		h.models = []string{"worker" + number}
		h.recovery = recoveryOfLink
	case strings.HasPrefix(name, "worker"):
		h.workers = []string{name}
		h.recovery = recoveryOfLink
	case strings.HasPrefix(name, "node"):
		h.workers = s.workerNames()
		h.recovery = recoveryOfCluster
	case s.nodes == 0 && (part == "serve" || part == "store" || part == "out"): // of serve, which is the bus
		h.workers = s.workerNames()
		h.recovery = recoveryOfBus
	}

	return h
}

// harmBy is what an event does to the ways of answers. Nobody but the bus decides by a
// clock that can be stepped how long a shard has been away.
func (s shape) harmBy(e event) harm {
	if e.deed.name == "clock" && !slices.Contains(storeNames(s), e.target) {
		return harm{}
	}

	h := s.harmTo(e.target)
	if e.deed.name == "foreign worker" { // it hands back what others have
		h = harm{workers: s.workerNames(), recovery: recoveryOfLink}
	}

	h.what = e.String()

	return h
}

// harmed notes what was done to the ways of answers.
func (f *fleet) harmed(h harm) {
	if len(h.workers)+len(h.models) == 0 {
		return
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	f.did.harms = append(f.did.harms, h)
}

// executed are the answers that the model servers gave, by id, and how many they are.
func (f *fleet) executed() (map[string][]execution, int, error) {
	all, n := map[string][]execution{}, 0
	for i, name := range f.shape.modelNames() {
		some, err := readExecutions(f.answers(name), f.shape.workerNames()[i], all)
		if err != nil {
			return nil, 0, err
		}
		n += some
	}

	return all, n, nil
}
