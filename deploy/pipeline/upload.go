package pipeline

import (
	"context"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// PrepareUpload checks the place that Upload copies the output to, if there is one. [Collect] does it too:
// a caller does it before it puts the run on the bus.
func (c CollectConfig) PrepareUpload(ctx context.Context, log zerolog.Logger) error {
	return prepareUpload(ctx, c.Upload, log)
}

// prepareUpload checks the place of an output that is copied.
func prepareUpload(ctx context.Context, upload Upload, log zerolog.Logger) error {
	if upload == nil {
		return nil
	}

	upload.LogTo(log)

	return upload.Prepare(ctx)
}

// setPlace names the results and the table by the place where they end up.
func setPlace(v *progress.Start, table TableOutput, upload Upload) {
	if table.enabled() {
		v.Tables = table.paths()
	}

	if upload == nil {
		return
	}

	v.Results = upload.Output().Results()
	for i, path := range v.Tables {
		v.Tables[i] = upload.Output().Beside(path)
	}
}

// placeOf names the files of an output in the place that they are copied to, or else on this machine.
func placeOf(upload Upload, local output.Prefix) output.Prefix {
	if upload != nil {
		return upload.Output()
	}
	return local
}

// addUpload has the journal copied beside the parts of a run.
func (p *Parts) addUpload(upload Upload, j *journal.Journal) {
	if upload == nil {
		return
	}

	run, size := j.State().Manifest.Run, j.Size()
	p.Watchers = append(p.Watchers, func(ctx context.Context) error {
		return upload.Follow(ctx, run, size)
	})
}

// onSynced returns the function that notes the size of the synced journal, or nil.
func onSynced(upload Upload) func(size int64) {
	if upload == nil {
		return nil
	}
	return upload.Synced
}

// finishUpload copies the files of a complete run.
func finishUpload(ctx context.Context, upload Upload, hooks Hooks, res *Result) error {
	if upload == nil {
		return nil
	}

	res.Place = upload.Output()
	copied, err := upload.Finish(ctx, res.Metadata)
	switch {
	case err != nil && ctx.Err() != nil:
		return interrupted(ctx, "interrupted: the run is complete, but not all of its files are uploaded",
			"run the same command again: it uploads what is missing")
	case err != nil:
		return err
	case copied > 0:
		hooks.printf("uploaded %s to %s.*", terminal.CountOf(copied, "file"), upload.Output())
	default:
		hooks.printf("all files are at %s.*", upload.Output())
	}

	return nil
}
