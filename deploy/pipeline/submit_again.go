package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// findOutputRun returns the run whose files are in the output of a submit, or nil if there are none.
func findOutputRun(cfg SubmitConfig) (*proto.Manifest, error) {
	if cfg.Output == "" {
		return nil, nil
	}

	m, path := readOutputRun(cfg.Output)
	switch {
	case m != nil && !m.Input.Stored:
		return nil, exit.WithHint(fmt.Errorf("%s is there already, of run %s", files.Short(path), m.Run),
			"the same promptmill run command continues that run; or choose another output with -o")
	case m != nil && (cfg.RunID == "" || cfg.RunID == m.Run):
		return m, nil
	case m != nil:
		return nil, exit.WithHint(fmt.Errorf("%s is there already, of run %s", files.Short(path), m.Run),
			"choose another output with -o")
	}

	for _, path := range []string{
		cfg.Output.Journal(),
		cfg.Output.Meta(),
		cfg.Output.Results(),
		cfg.Output.Errors(),
		cfg.Output.ReportMarkdown(),
		cfg.Output.ReportHTML(),
	} {
		if files.Exists(path) {
			return nil, exit.WithHint(fmt.Errorf("%s is there already, of another run", files.Short(path)),
				"choose another output with -o")
		}
	}

	return nil, nil
}

// readOutputRun returns the run of an output, and the file that names it. It returns nil if none
// does.
func readOutputRun(out output.Prefix) (m *proto.Manifest, path string) {
	if m, err := journal.ReadManifest(out.Journal()); err == nil {
		return &m, out.Journal()
	}

	if meta, err := out.ReadMeta(); err == nil {
		return meta.Manifest, out.Meta()
	}

	return nil, ""
}

// findEarlier returns the earlier run of the id: the one on the bus, else the one that the output of
// the caller has. It returns nil if there is none.
func (s *submission) findEarlier(ctx context.Context, run string) (*proto.Manifest, error) {
	if run == "" {
		return nil, nil
	}

	switch old, err := s.Runs.Get(ctx, run); {
	case err == nil:
		return &old, nil
	case !errors.Is(err, proto.ErrNoRun):
		return nil, err
	}

	return s.earlier, nil
}

// continueRun returns the run as it is on the bus if this submit continues it, else m if its id is
// free. It refuses the id of another run.
func (s *submission) continueRun(ctx context.Context, m proto.Manifest, cfg SubmitConfig) (proto.Manifest, error) {
	if s.earlier != nil {
		if text := describeRunChange(*s.earlier, m); text != "" {
			return m, exit.WithHint(fmt.Errorf("%s is of run %s, %s", files.Short(cfg.Output.Results()), m.Run, text),
				"choose another output with -o")
		}
	}

	old, err := s.Runs.Get(ctx, m.Run)
	switch {
	case errors.Is(err, proto.ErrNoRun) && s.earlier != nil && !files.Exists(cfg.Output.Journal()):
		return m, exit.WithHint(fmt.Errorf("run %s is complete already, in %s", m.Run, files.Short(cfg.Output.Results())),
			"choose another output with -o to run the input again")
	case errors.Is(err, proto.ErrNoRun) || err == nil && halfSubmitted(old, m): // the first to use the id, or to go on
		return m, nil
	case err != nil:
		return m, err
	case old.State == proto.StateValidating:
		return m, exit.WithHint(fmt.Errorf("there is a run %s on the bus already, whose submit has not ended, %s",
			m.Run, cmp.Or(describeRunChange(old, m), "with another --keep-results")),
			"choose another --run, or promptmill delete --force "+m.Run)
	}

	if text := describeRunChange(old, m); text != "" {
		return m, exit.WithHint(fmt.Errorf("there is a run %s on the bus already, %s", m.Run, text),
			"choose another --run, or leave it out")
	}

	follow := cfg.canFollow(old.State, s.earlier != nil)
	if text := describePolicyChange(old, m); text != "" && (!follow || cfg.Output == "") {
		return m, exit.WithHint(fmt.Errorf("there is a run %s on the bus already, with the same input and other "+
			"settings: %s", m.Run, text), "choose another --run, or leave it out")
	}

	if follow {
		s.hooks.printf("run %s is on the bus already, with the same input and settings: continuing with it", m.Run)
		return old, nil
	}

	return m, refuseSameRun(old)
}

// canFollow reports whether a submit continues the same run, which is on the bus in a state: by
// collecting it into its output, or by waiting for its end. hasFiles is set if the output has files.
func (c SubmitConfig) canFollow(state proto.State, hasFiles bool) bool {
	switch {
	case c.Output != "":
		return hasFiles || !state.Ended()
	case c.Wait:
		return !state.Ended() && state != proto.StatePaused
	}
	return false
}

// refuseSameRun returns the error for a run that is on the bus already, with the next command.
func refuseSameRun(old proto.Manifest) error {
	begin := fmt.Sprintf("there is a run %s on the bus already, with the same input and settings, which is ", old.Run)
	free := "; promptmill delete " + old.Run + " makes its id free"

	switch {
	case old.State == proto.StateFailed:
		return exit.WithHint(errors.New(begin+"refused by its collector: "+old.Problem), RefusedFix(old.Run))
	case old.State.Ended() && old.Counts.Failed > 0:
		return exit.WithHint(fmt.Errorf("%s%s, with %s failed requests", begin, old.State,
			terminal.FormatCount(old.Counts.Failed)), "promptmill retry "+old.Run+" runs the failed ones again"+free)
	case old.State.Ended():
		return exit.WithHint(fmt.Errorf("%s%s", begin, old.State.Word()),
			"promptmill status "+old.Run+" shows where its results are"+free)
	case old.StoppedBy != nil:
		return exit.WithHint(fmt.Errorf("%sstopped: %s", begin, old.StoppedBy), progress.FormatResume(old.Run, *old.StoppedBy))
	case old.State == proto.StatePaused:
		return exit.WithHint(fmt.Errorf("%s%s", begin, old.State.Word()), "promptmill resume "+old.Run+" continues it")
	}

	if old.Policy.Attended { // no server collects it
		return exit.WithHint(fmt.Errorf("%s%s", begin, old.State.Word()), "promptmill status "+old.Run+
			" shows which process collects it; if none does, the same command with --wait -o OUT continues it")
	}

	return exit.WithHint(fmt.Errorf("%s%s", begin, old.State.Word()),
		"promptmill status "+old.Run+" --watch shows its progress; the same command with --wait waits for its end")
}

// describePolicyChange returns the first setting that does not change the results and differs, or "".
// Only a label that is given counts. The end of a run's time is left out: it depends on when the
// command was given.
func describePolicyChange(then, now proto.Manifest) string {
	a, b := then.Settings.WithDefaults(), now.Settings.WithDefaults()
	p, q := then.Policy, now.Policy
	for _, d := range []struct {
		name      string
		then, now any
		same      bool
	}{
		{"--label", cmp.Or(then.Label, "none"), now.Label, now.Label == "" || now.Label == then.Label},
		{"--shard-size", a.ShardSize, b.ShardSize, a.ShardSize == b.ShardSize},
		{"--shard-encoding", cmp.Or(a.ShardEncoding, proto.Snappy), cmp.Or(b.ShardEncoding, proto.Snappy),
			cmp.Or(a.ShardEncoding, proto.Snappy) == cmp.Or(b.ShardEncoding, proto.Snappy)},
		{"--group-by-prefix", a.GroupByPrefix, b.GroupByPrefix, a.GroupByPrefix == b.GroupByPrefix},
		{"--priority", p.Priority, q.Priority, p.Priority == q.Priority},
		{"--keep-results", p.KeepResults, q.KeepResults, p.KeepResults == q.KeepResults},
		{"--keep in seconds", p.KeepSeconds, q.KeepSeconds, p.KeepSeconds == q.KeepSeconds},
		{"--fail-if", listThresholds(p.FailIf), listThresholds(q.FailIf), slices.Equal(p.FailIf, q.FailIf)},
		{"--max-tokens", nameTokens(p.MaxTokens), nameTokens(q.MaxTokens), p.MaxTokens == q.MaxTokens},
	} {
		if !d.same {
			return fmt.Sprintf("%s was %v and is %v now", d.name, d.then, d.now)
		}
	}

	return ""
}

// listThresholds lists thresholds as the flag takes them, or returns "none".
func listThresholds(all []proto.Threshold) string {
	var texts []string
	for _, t := range all {
		texts = append(texts, t.String())
	}
	return cmp.Or(strings.Join(texts, " "), "none")
}

// nameTokens returns a limit of tokens, or "none".
func nameTokens(limit int64) string {
	if limit == 0 {
		return "none"
	}
	return terminal.FormatCount(limit)
}
