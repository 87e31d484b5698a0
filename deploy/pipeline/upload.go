package pipeline

import (
	"context"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// prepareUpload checks the place of an output that is copied.
func prepareUpload(ctx context.Context, upload Upload) error {
	if upload == nil {
		return nil
	}
	return upload.Prepare(ctx)
}

// setPlace names the results by the place where they end up.
func setPlace(v *progress.Start, upload Upload) {
	if upload != nil {
		v.Results = upload.Output().Results()
	}
}

// addUpload has the journal copied beside the parts of a run.
func (p *Parts) addUpload(upload Upload, j *journal.Journal) {
	if upload == nil {
		return
	}

	run, size := j.State().Manifest.Run, j.Size()
	p.Watchers = append(p.Watchers, func(ctx context.Context) error {
		upload.Follow(ctx, run, size)
		return nil
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
