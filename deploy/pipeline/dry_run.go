package pipeline

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/promptmill/promptmill/deploy/dryrun"
	"github.com/promptmill/promptmill/deploy/inputerror"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// DryRunConfig names the input of a run that is not made.
type DryRunConfig struct {
	// Inputs are the files of requests, see [Config.Inputs]. Required.
	Inputs []string
	// Opener opens the inputs. Defaults to files of this machine.
	Opener inputfile.Opener
	// Stdin is read if Inputs is "-". Defaults to os.Stdin.
	Stdin io.Reader
	// Submitted reports that the run would be submitted, see [Submit]. Defaults to false: it would be one of Run.
	Submitted bool
	// Settings apply to the lines of the input, see [Config.Settings]. Model should be set: no
	// server is asked for its model.
	Settings proto.Settings
	// Hooks report the progress.
	Hooks Hooks
}

// DryRun validates an input as Run does and describes its requests. It connects to no bus and
// no model server, and writes nothing but a copy of standard input, which it removes. An input
// that cannot be sent is an error, as it is of Run.
func DryRun(ctx context.Context, cfg DryRunConfig) (*dryrun.Preview, error) {
	fault := inputerror.Input{
		Files:     cfg.Inputs,
		Opener:    cfg.Opener,
		Prompts:   true,
		Submitted: cfg.Submitted,
	}
	if len(cfg.Inputs) == 1 && cfg.Inputs[0] == "-" {
		dir, err := os.MkdirTemp("", "promptmill-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)

		path, err := CopyStdin(ctx, cmp.Or[io.Reader](cfg.Stdin, os.Stdin), dir)
		if err != nil {
			return nil, err
		}

		fault.Files, fault.Stdin = []string{path}, true
	}

	source := producer.Source{Files: fault.Files, Opener: cfg.Opener, Stored: cfg.Submitted}
	in, problems, err := producer.Validate(ctx, source, cfg.Settings, cfg.Hooks.Validating)
	if err != nil {
		return nil, fault.Describe(err)
	}

	if problems.Count > 0 && !cfg.Settings.SkipInvalid {
		return nil, RejectInput(cfg.Hooks, fault, problems, in.Requests, "name it with --model NAME")
	}

	p, err := previewRequests(ctx, in, cfg.Settings, source, cfg.Inputs)
	if err != nil {
		return nil, fault.Describe(err)
	}

	return p, nil
}

// previewRequests reads a validated input again, and describes its requests. names are the
// names of its files.
func previewRequests(
	ctx context.Context, in proto.Input, s proto.Settings, source producer.Source, names []string,
) (*dryrun.Preview, error) {
	source.Validated = in.Files
	r, err := producer.NewReader(ctx, source, s, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()

	p := &dryrun.Preview{Files: names, Rows: cmp.Or(in.Rows, in.Requests)}
	for {
		item, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			p.Finish()
			return p, nil
		case err != nil:
			return nil, err
		}

		if i := slices.Index(source.Files, item.File); i >= 0 {
			item.File = names[i]
		}

		p.Add(item)
		if p.Requests%4096 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}
