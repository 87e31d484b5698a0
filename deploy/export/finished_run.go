package export

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// FinishedRun returns the configuration for a table of a finished run, without its path. It refuses a run
// that is not finished, files that are not as the run wrote them, and an input that is not the run's.
func FinishedRun(ctx context.Context, out output.Prefix, inputs []string, opener inputfile.Opener) (Config, error) {
	if files.Exists(out.Journal()) {
		return Config{}, refuseUnfinished(out)
	}

	meta, err := out.ReadMeta()
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, exit.Usage("give the results of a run, with the files that the run wrote beside them",
			"%s is not there", files.Short(out.Meta()))
	}
	if err != nil {
		return Config{}, err
	}

	if meta.Config.Plain {
		return Config{}, exit.Usage("run the input again without --plain, with another output",
			"%s was written with --plain: its lines do not say which requests they answer", files.Short(out.Results()))
	}

	if had := len(meta.Manifest.Input.Files); meta.Manifest.Settings.Rows != nil && len(inputs) != had {
		return Config{}, exit.Usage("give all of them, in their order: "+report.ShellWords(meta.Test.InputFiles...),
			"the input of run %s has %s, and the command names %d", meta.TestID,
			terminal.CountOf(had, "file"), len(inputs))
	}

	if err := out.CheckFiles(meta); err != nil {
		return Config{}, exit.WithHint(err, "put the file back as the run wrote it")
	}

	cfg := Config{
		Input:   producer.SourceOf(meta.Manifest.Input, inputs, opener),
		Run:     *meta.Manifest,
		Output:  out,
		Ordered: meta.Config.Ordered,
	}
	cfg.CheckInput = func(ctx context.Context) error { return checkInput(ctx, cfg.Run, cfg.Input) }

	return cfg, describeInputError(cfg.CheckInput(ctx), meta)
}

// checkInput returns an error that wraps [proto.ErrInputChanged] if an input is not the one of a run.
func checkInput(ctx context.Context, m proto.Manifest, source producer.Source) error {
	now, err := source.Describe(ctx)
	if err != nil {
		return err
	}

	same := len(now) == len(m.Input.Files)
	for i := 0; same && i < len(now); i++ {
		same = inputfile.IsUnchanged(m.Input.Files[i], now[i])
	}

	if same {
		return nil
	}

	return producer.CheckInput(ctx, m.Input, m.Settings, source)
}

// describeInputError names the input of a run, if it is not the one that was given.
func describeInputError(err error, meta *metadata.Run) error {
	switch {
	case errors.Is(err, proto.ErrInputChanged):
		return exit.WithHint(fmt.Errorf("the input is not the one of run %s: %w", meta.TestID, err),
			"give the input as it was when the run began: "+report.ShellWords(meta.Test.InputFiles...))
	case errors.Is(err, fs.ErrNotExist):
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
			return exit.Usage("", "%s: %w", files.Short(pathErr.Path), pathErr.Err)
		}
		return exit.Usage("", "%w", err)
	}

	return err
}

// refuseUnfinished returns the error of a run that has a journal.
func refuseUnfinished(out output.Prefix) error {
	m, err := journal.ReadManifest(out.Journal())
	if err != nil {
		return exit.WithHint(fmt.Errorf("the run of %s is not finished", files.Short(out.Journal())),
			"give the command that began it again to finish it")
	}

	hint := "give the promptmill run command that began it again to finish it"
	if !m.Policy.Attended {
		hint = report.ShellWords("promptmill", "collect", m.Run, "-o", files.Short(out.Results())) + " finishes it"
	}

	return exit.WithHint(fmt.Errorf("run %s is not finished: its answers are in %s", m.Run, files.Short(out.Journal())),
		hint)
}
