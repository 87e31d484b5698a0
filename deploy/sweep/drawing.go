package sweep

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"reflect"
	"time"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/inputerror"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/sample"
	"github.com/promptmill/promptmill/proto"
)

// begin draws the sample of a new trial, and writes its record.
func (s *sweeper) begin(ctx context.Context) error {
	if err := os.MkdirAll(string(s.folder), 0o777); err != nil {
		return exit.WithHint(fmt.Errorf("make the folder of the trial: %w", err), "choose another name with -o")
	}

	drawn, sums, err := s.draw(ctx)
	if err != nil {
		os.Remove(string(s.folder)) // only if nothing lies in it
		return err
	}

	s.record = &record{
		Format:         recordFormat,
		CreatedAt:      time.Now().UTC(),
		Files:          drawn.Files,
		Size:           s.cfg.Sample,
		Sample:         drawn,
		SampleSHA256:   sums[0],
		ExpectedSHA256: sums[1],
		Settings:       s.cfg.Settings,
		Expect:         s.cfg.Expect,
	}

	return s.record.write(s.folder)
}

// describeExpect says which expected answers a trial has.
func describeExpect(column string) string {
	if column == "" {
		return "without --expect"
	}
	return "with --expect " + column
}

// resume compares the trial on disk with the configuration, and refuses to go on with another one.
func (s *sweeper) resume(ctx context.Context) error {
	r := s.record
	var what string
	switch {
	case r.Size != s.cfg.Sample:
		what = fmt.Sprintf("with a sample of %d requests, and the command wants %d", r.Size, s.cfg.Sample)
	case r.Expect != s.cfg.Expect:
		what = describeExpect(r.Expect) + ", and the command is " + describeExpect(s.cfg.Expect)
	case !sameJSON(r.Settings, s.cfg.Settings):
		what = "with other settings of its requests"
	}
	if what != "" {
		return exit.WithHint(fmt.Errorf("the trial %s was begun %s", files.Short(string(s.folder)), what),
			"give the same settings, or choose another trial with -o, which measures all variants again")
	}

	same, err := s.hasSameInput(ctx)
	if err != nil {
		return err
	}
	if same && s.hasSample() {
		return nil
	}

	return s.redraw(ctx)
}

// sameJSON reports whether two values have the same JSON: one of them has been on disk.
func sameJSON(a, b any) bool {
	var decoded [2]any
	for i, v := range []any{a, b} {
		text, err := json.Marshal(v)
		if err != nil || json.Unmarshal(text, &decoded[i]) != nil {
			return false
		}
	}

	return reflect.DeepEqual(decoded[0], decoded[1])
}

// hasSameInput reports whether the files of the input are those that the sample was drawn from, by their sizes and
// times. Standard input has neither.
func (s *sweeper) hasSameInput(ctx context.Context) (bool, error) {
	if s.cfg.Inputs[0] == "-" {
		return false, nil
	}

	now, err := s.source().Describe(ctx)
	if err != nil {
		return false, s.fault(s.cfg.Inputs).Describe(err)
	}

	if len(now) != len(s.record.Files) {
		return false, nil
	}

	for i := range now {
		if now[i].Path != s.record.Files[i].Path || !inputfile.IsUnchanged(s.record.Files[i], now[i]) {
			return false, nil
		}
	}

	return true, nil
}

// hasSample reports whether the files of the sample are as they were written.
func (s *sweeper) hasSample() bool {
	for path, want := range map[string]string{
		s.folder.sample():   s.record.SampleSHA256,
		s.folder.expected(): s.record.ExpectedSHA256,
	} {
		if want == "" {
			continue
		}
		if got, _, err := output.HashFile(path); err != nil || got != want {
			return false
		}
	}

	return true
}

// redraw draws the sample again, and refuses an input that has another one.
func (s *sweeper) redraw(ctx context.Context) error {
	drawn, sums, err := s.drawIf(ctx, func(_ sample.Sample, sums [2]string) error {
		if sums == [2]string{s.record.SampleSHA256, s.record.ExpectedSHA256} {
			return nil
		}
		return exit.WithHint(fmt.Errorf("the trial %s was begun with another input: %w",
			files.Short(string(s.folder)), proto.ErrInputChanged),
			"put the input back as it was, or choose another trial with -o")
	})
	if err != nil {
		return err
	}

	s.record.Files, s.record.Sample = drawn.Files, drawn
	s.record.SampleSHA256, s.record.ExpectedSHA256 = sums[0], sums[1]

	return s.record.write(s.folder)
}

// draw draws the sample, and returns the checksums of its requests and of the expected answers.
func (s *sweeper) draw(ctx context.Context) (sample.Sample, [2]string, error) {
	return s.drawIf(ctx, func(sample.Sample, [2]string) error { return nil })
}

// drawIf is draw, and leaves the files of an earlier sample if check refuses the new one.
func (s *sweeper) drawIf(
	ctx context.Context, check func(sample.Sample, [2]string) error,
) (drawn sample.Sample, sums [2]string, err error) {
	source := s.source()
	if s.cfg.Inputs[0] == "-" {
		copied, err := pipeline.CopyStdin(ctx, s.cfg.Stdin, string(s.folder))
		if err != nil {
			return drawn, sums, err
		}
		defer os.Remove(copied)
		source.Files = []string{copied}
	}

	lines, err := atomicfile.Create(s.folder.sample(), 0o666)
	if err != nil {
		return drawn, sums, err
	}
	defer lines.Abort()

	expected, err := atomicfile.Create(s.folder.expected(), 0o666)
	if err != nil {
		return drawn, sums, err
	}
	defer expected.Abort()

	hashed := [2]*hashingWriter{newHashingWriter(lines), newHashingWriter(expected)}
	drawn, err = sample.Draw(ctx, sample.Config{
		Source:   source,
		Settings: s.cfg.Settings,
		Size:     s.cfg.Sample,
		Expect:   s.cfg.Expect,
		Folder:   string(s.folder),
		Progress: s.cfg.Hooks.Drawing,
	}, hashed[0], hashed[1])
	if err != nil {
		return drawn, sums, s.describeDrawError(source.Files, err)
	}

	sums[0] = hashed[0].sum()
	if s.cfg.Expect != "" {
		sums[1] = hashed[1].sum()
	}

	if err := check(drawn, sums); err != nil {
		return drawn, sums, err
	}

	if s.cfg.Expect != "" {
		if err := expected.Commit(nil); err != nil {
			return drawn, sums, err
		}
	}

	return drawn, sums, lines.Commit(nil)
}

// source returns the input.
func (s *sweeper) source() producer.Source {
	return producer.Source{Files: s.cfg.Inputs, Opener: s.cfg.Opener}
}

// fault describes an input for the texts of its faults.
func (s *sweeper) fault(paths []string) inputerror.Input {
	return inputerror.Input{
		Files:   paths,
		Opener:  s.cfg.Opener,
		Stdin:   s.cfg.Inputs[0] == "-",
		Prompts: true,
	}
}

// describeDrawError puts the error of an input into words, with the way out.
func (s *sweeper) describeDrawError(paths []string, err error) error {
	refused, _ := errors.AsType[*sample.RefusedError](err)
	missing, _ := errors.AsType[*sample.MissingError](err)
	switch {
	case refused != nil:
		return pipeline.RejectInput(pipeline.Hooks{Printf: s.cfg.Hooks.Printf}, s.fault(paths), refused.Report,
			refused.Requests, "")
	case missing != nil:
		return exit.Usage(missing.Hint(), "--expect %s: %w", s.cfg.Expect, missing)
	}

	return s.fault(paths).Describe(err)
}

// hashingWriter is a writer that computes the checksum of what is written.
type hashingWriter struct {
	io.Writer

	hash hash.Hash
}

func newHashingWriter(w io.Writer) *hashingWriter {
	h := sha256.New()
	return &hashingWriter{io.MultiWriter(w, h), h}
}

// sum returns the checksum of all that was written.
func (w *hashingWriter) sum() string { return hex.EncodeToString(w.hash.Sum(nil)) }
