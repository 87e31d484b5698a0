package pipeline

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker"
)

// ErrInterrupted is returned when a context ends before the work is done. The same call resumes.
var ErrInterrupted = errors.New("interrupted")

// ErrOtherRun is returned when an output belongs to a run with another input or other settings.
var ErrOtherRun = errors.New("the output belongs to another run")

// ErrInvalidInput is returned when lines of the input cannot be sent.
var ErrInvalidInput = errors.New("lines of the input cannot be sent")

// InputError is the error of an input with lines that cannot be sent. It wraps [ErrInvalidInput].
type InputError struct {
	error

	// Report has the lines.
	Report producer.Report
}

// Unwrap returns ErrInvalidInput.
func (e *InputError) Unwrap() error { return ErrInvalidInput }

// kindError is an error of one of the kinds above, with its own text.
type kindError struct {
	error

	kind error
}

func (e *kindError) Unwrap() []error { return []error{e.error, e.kind} }

// interruptedError is the error of work whose context has ended.
type interruptedError struct {
	text  string
	cause error
}

func (e *interruptedError) Error() string   { return e.text }
func (e *interruptedError) Unwrap() []error { return []error{ErrInterrupted, e.cause} }

// interrupted returns the error of work whose context has ended. It wraps ErrInterrupted and the
// cause of that.
func interrupted(ctx context.Context, text, hint string) error {
	return exit.Interrupted(&interruptedError{text, context.Cause(ctx)}, hint)
}

// describeError puts an error into words for the person who waits for the run.
func (r *runner) describeError(ctx context.Context, err error) error {
	again := "run the same command again to continue; nothing is lost"
	done := ""
	if r.journal != nil {
		s := r.journal.State()
		done = ": " + progress.FormatKept(s.Counts.Done, s.Manifest.Input.Requests, 0)
	}

	refused, _ := errors.AsType[*worker.RefusedError](err)
	limit, _ := errors.AsType[*LimitError](err)
	switch {
	case exit.Code(err) == exit.CodeLimit:
		return err
	case limit != nil:
		limit.addDetails(r.journal)
		return exit.LimitReached(limit.Reached.Key(), limit, r.limitFix(limit.Reached))
	case ctx.Err() != nil:
		return interrupted(ctx, "interrupted"+done, again)
	case errors.Is(err, errIDInUse):
		return err
	case r.link != nil && r.link.ClosedErr() != nil:
		err = r.link.ClosedErr()
		return exit.Unreachable(fmt.Errorf("%w%s", err, done), exit.Hint(err)+", then "+again)
	case errors.Is(err, proto.ErrInputChanged):
		return exit.WithHint(fmt.Errorf("%w; nothing final was written%s", err, done),
			"put the input back as it was and run the same command again: answers to other lines are found and run again. Or choose another output with -o")
	case refused != nil:
		if !files.Exists(r.output.Journal()) {
			return exit.Unreachable(fmt.Errorf("%w; no request was run", refused),
				refused.Fix()+", then run the same command again")
		}
		return exit.Unreachable(fmt.Errorf("%w%s", refused, done), refused.Fix()+", then "+again)
	case errors.Is(err, collector.ErrDeleted):
		return exit.WithHint(fmt.Errorf("%w by another process%s", err, done),
			"run the same command again to put the run on the bus again; its finished lines are kept")
	case errors.Is(err, natsserver.ErrStore):
		return exit.Unreachable(fmt.Errorf("%w (%s)%s", err, r.stateDir, done), "free space on that disk, then "+again)
	case errors.Is(err, syscall.ENOSPC):
		return exit.WithHint(fmt.Errorf("%w%s", err, done), "free space on that disk, then "+again)
	case exit.Code(err) != exit.CodeError || r.journal == nil:
		return err
	}

	return exit.WithDefaultHint(describeRedirect(err), "fix that, then "+again)
}

// metaHint returns the hint for metadata that cannot be read.
func metaHint(err error) string {
	if errors.Is(err, proto.ErrFormat) || errors.Is(err, metadata.ErrFormat) {
		return "move it away, with the files beside it, or choose another output with -o"
	}
	return "let this user read it, or choose another output with -o"
}

// CheckOutput refuses an output that could not be written in the end, before anything is
// done for it.
func CheckOutput(out output.Prefix) error {
	return describeOutputError(out.Check())
}

// claimOutput keeps other runs from the files of the output.
func claimOutput(j *journal.Journal, out output.Prefix) error {
	return describeOutputError(j.Claim(out))
}

// describeRedirect adds the hint to the error of an output that was redirected during a run.
func describeRedirect(err error) error {
	if errors.Is(err, output.ErrRedirected) {
		return exit.WithHint(err,
			"put the link back as it was, or point it where this file is to be written, then run the same command again to continue; nothing is lost")
	}

	return err
}

// describeOutputError adds a hint to the error of an output that cannot be written.
func describeOutputError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENAMETOOLONG):
		return exit.Usage("a run adds up to 21 bytes to NAME: choose a shorter one with -o NAME"+output.ResultsSuffix,
			"the output %w", err)
	case errors.Is(err, atomicfile.ErrForeignLink):
		return exit.Usage("delete it, or choose another output with -o", "the output %w", err)
	case errors.Is(err, atomicfile.ErrIrregular), errors.Is(err, output.ErrSameFile):
		return exit.Usage("choose another output with -o", "the output %w", err)
	case errors.Is(err, output.ErrClaimed), errors.Is(err, atomicfile.ErrLocked):
		return exit.WithHint(fmt.Errorf("the output %w", err),
			"choose another output with -o, or let that run end first")
	}

	return exit.WithHint(fmt.Errorf("the output %w", err),
		"make room or let this user write there, or choose another output with -o")
}
