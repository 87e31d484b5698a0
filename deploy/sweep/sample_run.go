package sweep

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/producer/sample"
	"github.com/promptmill/promptmill/proto"
)

// flushInterval is the time until an answer is in the journal, which the trial reads.
const flushInterval = time.Second

// shardSize is the number of requests of a shard. A worker that is paused finishes the shards that it has.
const shardSize = 8

// runSample runs the sample at the server of a variant, or goes on with that. The run is on the bus while follow
// works, which decides when it ends.
func (s *sweeper) runSample(ctx context.Context, v *variant, opened *server, follow follower) error {
	settings := sample.LineSettings(s.record.Settings)
	settings.Model, settings.OverrideModel = "", opened.model
	settings.ShardSize = shardSize

	out := s.folder.output(v.Slug)
	v.Meta = out.Meta()

	workers := s.cfg.Workers
	workers.Forget = true // another variant may have been at the same URL

	_, err := pipeline.Run(ctx, pipeline.Config{
		Inputs:        []string{s.folder.sample()},
		Output:        string(out),
		Opened:        opened.Set,
		Workers:       workers,
		Retry:         v.again,
		Settings:      settings,
		Label:         newLabel(v.Name),
		State:         s.cfg.State,
		FlushInterval: flushInterval,
		Report:        s.cfg.Report,
		Version:       s.cfg.Version,
		Log:           s.cfg.Log.With().Str("variant", v.Name).Logger(),
		Hooks: pipeline.Hooks{
			Progress: follow.progress,
		},
		API: follow.follow,
	})

	return err
}

// follower follows the run of a variant.
type follower interface {
	// follow works until ctx ends. Its error ends the run.
	follow(ctx context.Context, run pipeline.LiveRun) error
	// progress gets the progress of the run.
	progress(progress.Sample)
}

// newLabel returns the label of the run of a variant.
func newLabel(name string) string {
	for n := len(name); n > 0; n-- {
		if proto.CheckLabel(name[:n]) == nil {
			return name[:n]
		}
	}
	return ""
}

// readRun reads the metadata of the run of a variant, or describes its journal; nil: there is neither. It refuses the
// metadata of another run, which would stand for the variant.
func (v *variant) readRun(f folder, sampleSHA256 string) error {
	out := f.output(v.Slug)
	meta, err := out.ReadMeta()
	if err == nil {
		v.Run, v.Meta = meta, out.Meta()
		return v.checkRun(sampleSHA256)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	j := journal.Follow(out.Journal())
	defer j.Close()

	v.Meta = ""

	return v.readJournal(j)
}

// checkRun refuses metadata that is not of a run of the variant on the sample of the trial.
func (v *variant) checkRun(sampleSHA256 string) error {
	var problem string
	switch label := newLabel(v.Name); {
	case v.Run.Test.InputSHA256 != sampleSHA256:
		problem = "a run of other requests than the sample of the trial"
	case v.Run.Label != label:
		problem = fmt.Sprintf("a run with the label %q, and not %q", v.Run.Label, label)
	default:
		return nil
	}

	return exit.WithHint(fmt.Errorf("%s, the metadata of the variant %q, is of %s", files.Short(v.Meta), v.Name, problem),
		"put the file back as it was, or choose another name with -o")
}

// checkMeta refuses the metadata of an ended variant that are not those that its figures were read from.
func (v *variant) checkMeta(f folder) error {
	if !v.State.HasEnded() || v.MetaSHA256 == "" {
		return nil
	}

	path := f.output(v.Slug).Meta()
	problem := "is another file than the trial has read"
	switch sum, _, err := output.HashFile(path); {
	case errors.Is(err, fs.ErrNotExist):
		problem = "is gone"
	case err != nil:
		return err
	case sum == v.MetaSHA256:
		return nil
	}

	return exit.WithHint(fmt.Errorf("%s, the metadata of the variant %q, %s", files.Short(path), v.Name, problem),
		"put the file back as it was, or choose another name with -o")
}

// noteMeta notes what the metadata of a variant are that has ended.
func (v *variant) noteMeta() (err error) {
	v.MetaSHA256 = ""
	if v.Meta != "" {
		v.MetaSHA256, _, err = output.HashFile(v.Meta)
	}
	return err
}

// readJournal describes the run so far, if there is a journal.
func (v *variant) readJournal(j *journal.Follower) error {
	_, err := j.Refresh()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	described := collector.DescribeSoFar(j.State(), j.State().At)
	v.Run, v.describedAt = &described, j.State().At

	return nil
}
