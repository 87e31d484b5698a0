package sweep

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/journal"
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

// readRun reads the metadata of the run of a variant, or describes its journal; nil: there is neither.
func (v *variant) readRun(f folder) error {
	out := f.output(v.Slug)
	meta, err := out.ReadMeta()
	if err == nil {
		v.Run, v.Meta = meta, out.Meta()
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	j := journal.Follow(out.Journal())
	defer j.Close()

	v.Meta = ""

	return v.readJournal(j)
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
