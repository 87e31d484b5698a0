package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/inputerror"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// resume takes up the run of the journal.
func (r *runner) resume(ctx context.Context) error {
	state := r.journal.State()
	if err := r.checkSameRun(ctx, state.Manifest); err != nil {
		return err
	}

	state.Manifest.Policy = state.Manifest.Policy.WithLimits(r.cfg.Policy)
	m := state.Manifest
	m.Counts = state.Counts
	if err := checkTokens(m, raiseTokens); err != nil {
		return err
	}

	if err := r.keepStdin(); err != nil {
		return err
	}

	if err := CheckOutput(r.output); err != nil {
		return err
	}

	if err := claimOutput(r.journal, r.output); err != nil {
		return err
	}

	// The file may have been moved: its contents are the same.
	for i, path := range r.inputs {
		if i < len(state.Manifest.Input.Files) {
			state.Manifest.Input.Files[i].Move(path)
		}
	}

	r.relabel(&state.Manifest)

	if state.CutBytes > 0 {
		r.cfg.Hooks.printf("cut %d torn bytes off %s", state.CutBytes, r.output.Journal())
	}

	if err := r.openServers(ctx, state.Manifest.Models()); err != nil {
		return err
	}

	return r.checkModels(state.Manifest.Input)
}

// relabel gives a run the label of the configuration, if that has one. The label is a name, and the
// last one given counts; the input and the settings decide which run it is.
func (r *runner) relabel(m *proto.Manifest) {
	now := r.cfg.Label
	if now == "" || now == m.Label {
		return
	}

	if m.Label != "" {
		r.cfg.Hooks.printf("the run's label is now %q; it was %q", now, m.Label)
	}

	m.Label = now
}

// begin validates the input and makes the journal of a new run.
func (r *runner) begin(ctx context.Context) error {
	if err := r.keepStdin(); err != nil {
		return err
	}

	if err := CheckOutput(r.output); err != nil {
		return err
	}

	settings, err := r.completeSettings(ctx)
	if err != nil {
		return err
	}

	m := proto.Manifest{
		Schema:    proto.SchemaFor(settings),
		Run:       r.cfg.RunID,
		Label:     r.cfg.Label,
		State:     proto.StateInProgress,
		CreatedAt: time.Now().UTC(),
		Settings:  settings,
		Policy:    r.cfg.Policy,
	}
	if m.Run == "" {
		m.Run = proto.NewRunID(m.CreatedAt)
	}

	if err := r.validateInput(ctx, &m); err != nil {
		return err
	}

	if r.cfg.Servers.Sim != nil { // serves the models of the input
		if err := r.openServers(ctx, m.Models()); err != nil {
			return err
		}
	}

	if err := r.checkModels(m.Input); err != nil {
		return err
	}

	m.Settings.Workers = r.countWorkers()

	return r.createJournal(m)
}

// SimModel is the model of a simulated server for requests that name none.
const SimModel = "sim"

// completeSettings returns the settings of a new run, with the model of the servers if the
// configuration names none.
func (r *runner) completeSettings(ctx context.Context) (proto.Settings, error) {
	settings := withShardDefaults(r.cfg.Settings)
	named := settings.Model != "" || settings.OverrideModel != ""

	if r.cfg.Servers.Sim != nil {
		if !named {
			settings.Model = SimModel
		}
		return settings, nil
	}

	if err := r.openServers(ctx, nil); err != nil {
		return settings, err
	}

	if !named {
		settings.Model = r.served.DefaultModel()
	}

	return settings, nil
}

// countWorkers returns the number of workers that the shards are cut for.
func (r *runner) countWorkers() int {
	n := 1
	if r.servers != nil {
		n = len(r.servers.Servers)
	}

	if r.cfg.Shared {
		n = max(n, sharedWorkers)
	}

	return n
}

// validateInput reads the input, describes it in the manifest, and refuses lines that cannot be
// sent.
func (r *runner) validateInput(ctx context.Context, m *proto.Manifest) error {
	var problems producer.Report
	var err error
	m.Input, problems, err = producer.Validate(ctx, r.source(), m.Settings, r.cfg.Hooks.Validating)
	if err != nil {
		return r.describeInput().Describe(err)
	}

	if problems.Count == 0 || m.Settings.SkipInvalid {
		return nil
	}

	if errors.Is(r.unlisted, modelserver.ErrKeyRequired) && lackOnlyModels(problems) {
		return exit.Unreachable(r.unlisted,
			"set PROMPTMILL_API_KEY to a key that the server takes, or name a model with --model")
	}

	return RejectInput(r.cfg.Hooks, r.describeInput(), problems, m.Input.Requests, r.nameModel())
}

// describeInput describes the input for the texts of its faults.
func (r *runner) describeInput() inputerror.Input {
	return inputerror.Input{
		Files:   r.inputs,
		Opener:  r.cfg.Opener,
		Stdin:   r.stdin != nil,
		Prompts: true,
	}
}

// createJournal makes the journal of a new run.
func (r *runner) createJournal(m proto.Manifest) (err error) {
	if r.journal, err = createJournal(r.output, m); err != nil {
		if exit.IsError(err) {
			return err
		}
		return exit.WithHint(err, "choose another output with -o")
	}

	if files.Exists(r.output.Meta()) || checkNotForeign(r.output) != nil {
		// Another process, with another state folder, began and completed it meanwhile.
		return exit.WithHint(errors.Join(fmt.Errorf("another promptmill has just written %s", r.output.Results()),
			r.journal.Remove()),
			"run the same command again to see the run that wrote it, or choose another output with -o")
	}

	return nil
}

// createJournal makes the journal of a new run, unless another run writes a file of the output.
func createJournal(out output.Prefix, m proto.Manifest) (*journal.Journal, error) {
	j, err := journal.Create(out.Journal(), m)
	if err != nil {
		return nil, err
	}

	if err := claimOutput(j, out); err != nil {
		return nil, errors.Join(err, j.Remove(), j.Close())
	}

	return j, nil
}

// keepStdin keeps the copy of standard input for the run.
func (r *runner) keepStdin() error {
	if r.stdin == nil {
		return nil
	}

	if err := r.stdin.keep(); err != nil {
		return err
	}

	r.inputs = []string{r.stdin.path}

	return nil
}

// lackOnlyModels reports whether all that is wrong with the lines is that they name no model. A
// server that wants a key before it lists its models leaves all lines so.
func lackOnlyModels(p producer.Report) bool {
	return len(p.Reasons) == 1 && p.Reasons[0].Fault == producer.FaultNoModel
}

// nameModel returns the hint for requests that name no model.
func (r *runner) nameModel() string {
	if names := r.served.ModelNames(); len(names) > 0 {
		return "name one with --model NAME: there are " + listNames(names)
	}
	return "name it with --model NAME"
}

// listNames lists names, the first ten of many.
func listNames(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// RejectInput prints why lines cannot be sent, and returns the error. nameModel is the hint for
// lines that name no model.
func RejectInput(hooks Hooks, in inputerror.Input, p producer.Report, requests int, nameModel string) error {
	in.PrintReasons(hooks.printf, p)

	err := &InputError{
		error: fmt.Errorf("%s of %s %ss cannot be sent; nothing was sent", terminal.FormatCount(p.Count),
			terminal.FormatCount(requests), inputerror.Unit(p)),
		Report: p,
	}

	return in.DescribeLines(err, p, requests, nameModel)
}

// openServers opens the model servers, and waits while they load. models are those of the run, as
// far as they are known: a simulated server serves them.
func (r *runner) openServers(ctx context.Context, models []string) (err error) {
	if r.cfg.Bus.CollectsOnly() {
		return nil // workers of other processes run the requests
	}

	cfg := r.cfg.Servers
	if cfg.Sim != nil {
		server := *cfg.Sim
		server.Models, cfg.Sim = models, &server
	}

	if r.servers = r.cfg.Opened; r.servers == nil {
		r.servers, err = modelservers.Open(ctx, cfg)
	}
	if errors.Is(err, modelservers.ErrNone) && r.cfg.Shared {
		return nil // workers of other processes run the requests
	}
	if err != nil {
		return err
	}

	r.nameTrialModel(models)

	return r.awaitServers(ctx)
}

// nameTrialModel names a model of the run to its servers: one that cannot list its models is asked
// for it.
func (r *runner) nameTrialModel(models []string) {
	named := []string{r.cfg.Settings.OverrideModel, r.cfg.Settings.Model}
	model := cmp.Or(append(named, models...)...)
	if model == "" {
		return
	}

	for _, server := range r.servers.Servers {
		server.TryModel(model)
	}
}

// awaitServers waits until the model servers are loaded.
func (r *runner) awaitServers(ctx context.Context) error {
	if found := r.servers.Servers; len(found) > 1 && len(r.cfg.Servers.URLs) == 0 && !r.servers.Started() &&
		r.cfg.Opened == nil {
		r.cfg.Hooks.printf("found %d model servers, using %s; --url names another, or several",
			len(found), found[0].URL())
		r.servers.KeepFirst()
	}

	if r.servers.Started() && r.cfg.Opened == nil {
		r.sayStarted()
	}

	info, err := r.servers.AwaitReady(ctx, r.cfg.Hooks.Loading)
	if errors.Is(err, modelserver.ErrFailing) {
		return exit.Unreachable(err, "look at the log of your model server, or name another one with --url")
	}
	if errors.Is(err, modelserver.ErrUnreachable) {
		return exit.Unreachable(err, "start your model server, name it with --url, or try --sim")
	}
	if exit.Code(err) == exit.CodeUnreachable || ctx.Err() != nil {
		return err
	}
	if err != nil { // a server that answers without a list may still serve
		r.cfg.Log.Warn().Err(err).Msg("the model server does not list its models")
		r.unlisted = err
	}

	r.served = info

	return nil
}

// sayStarted says which model servers are started.
func (r *runner) sayStarted() {
	list := r.servers.Servers
	if len(list) == 1 && r.servers.GPUs(list[0]) == "" {
		r.cfg.Hooks.printf("starting the model server of --exec, and waiting for it at %s; --url names another place",
			list[0].URL())
		return
	}

	for _, server := range list {
		on := ""
		if gpus := r.servers.GPUs(server); gpus != "" {
			on = " on GPU " + gpus
		}
		r.cfg.Hooks.printf("starting a model server of --exec at %s%s", server.URL(), on)
	}
}

// platform describes the model servers for the metadata.
func (r *runner) platform() string {
	if r.servers == nil {
		return "OpenAI-compatible servers"
	}
	return r.servers.String()
}

// checkModels refuses requests for models that the servers do not have: they would wait for ever.
func (r *runner) checkModels(in proto.Input) error {
	names := r.served.ModelNames()
	if r.cfg.Shared {
		return nil
	}

	has := "server has"
	if r.servers != nil && len(r.servers.Servers) > 1 {
		has = "servers that answer have"
	}

	for _, model := range slices.Sorted(maps.Keys(in.Models)) {
		if !proto.Serves(names, model) {
			return exit.Usage(suggestModel(model, names)+overrideModel(names)+", or start a server with that model",
				"%d requests name the model %q, but the %s %s",
				in.Models[model], model, has, cmp.Or(strings.Join(names, ", "), "none"))
		}
	}

	return nil
}

// overrideModel returns the way to send all requests to a served model.
func overrideModel(served []string) string {
	if len(served) == 1 && !proto.IsPattern(served[0]) {
		return "send all requests to it with --override-model " + report.ShellWords(served[0])
	}
	return "send all requests to another with --override-model NAME"
}

// suggestModel asks whether a served model was meant, which has the same name but for its case or
// the part before the last slash.
func suggestModel(model string, served []string) string {
	base := func(name string) string { return strings.ToLower(name[strings.LastIndex(name, "/")+1:]) }
	for _, name := range served {
		if base(name) == base(model) {
			return fmt.Sprintf("did you mean %s? Else ", name)
		}
	}
	return ""
}
