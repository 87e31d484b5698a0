package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
)

// Kind selects the lines of a content.
type Kind int

const (
	// Answers are the lines of answered requests.
	Answers Kind = iota
	// Failures are the lines of failed requests.
	Failures
)

// Config selects the content to open.
type Config struct {
	// Output names the run's files. Required.
	Output output.Prefix
	// Kind selects the lines. Defaults to Answers.
	Kind Kind
	// Plain leaves the key "promptmill" out of the lines of a journal. It must be the value of
	// the run's output.Format: a complete output has the lines as they were written.
	Plain bool
	// Done bounds the lines that are read from a journal: it is the number of requests whose
	// lines are synced, as the bus has it. Lines beyond could vanish with the power, and their
	// requests would be answered again. Defaults to 0, no lines.
	Done int
}

// CorruptionError reports a complete output that differs from the bytes written there. It
// counts as [proto.ErrFormat].
type CorruptionError struct {
	// Path is the path of the file.
	Path string
	// Offset is the place in the text, in unpacked bytes, from which on it cannot be read.
	Offset int64
	// Err is the reason.
	Err error
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("%s is corrupt at byte %d of its unpacked text: %v", e.Path, e.Offset, e.Err)
}

// Unwrap returns proto.ErrFormat and the cause.
func (e *CorruptionError) Unwrap() []error { return []error{proto.ErrFormat, e.Err} }

// Content is the text of the answered or of the failed lines of a run at the moment when it
// was opened. It stays readable when the run completes or its files are replaced. It is safe
// for concurrent use.
type Content struct {
	cfg   Config
	text  text
	file  *os.File     // of a complete output; nil: no request failed
	close func() error // nil: nothing is open
	lines func() int64
}

// text is a text that is packed.
type text interface {
	// size returns the bytes of the text.
	size() int64
	// copyRange writes n bytes of the text from an offset on. The text has that many.
	copyRange(ctx context.Context, w io.Writer, offset, n int64) error
}

// Open opens the content of a run: of its journal if there is one, and of its complete files
// otherwise. A run that is complete and has no failed requests has an empty text of them. The
// error wraps os.ErrNotExist if there is neither a journal nor a complete output, and
// [proto.ErrFormat] if a file is damaged: it is a [journal.CorruptionError] or a
// [CorruptionError].
func Open(cfg Config) (*Content, error) {
	s, err := journal.OpenSnapshot(cfg.Output.Journal(), cfg.Done)
	if err == nil {
		return openJournal(cfg, s), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}

	// The journal is removed after the files have appeared, so there are none of a run that
	// works now.
	return openComplete(cfg)
}

// openJournal returns the content of a journal.
func openJournal(cfg Config, s *journal.Snapshot) *Content {
	failed := cfg.Kind == Failures
	t := &frameText{
		read: func(i int, dec *output.FrameDecoder) ([]byte, error) {
			return s.ReadText(i, failed, cfg.Plain, dec)
		},
		decoders: &journalDecoders,
	}

	lines := int64(0)
	for i, f := range s.Frames() {
		t.add(i, f.Sizes.Of(failed, cfg.Plain))

		if failed {
			lines += int64(f.Failed)
		} else {
			lines += int64(f.Done - f.Failed)
		}
	}

	return &Content{
		cfg:   cfg,
		text:  t,
		close: s.Close,
		lines: func() int64 { return lines },
	}
}

// openComplete opens a file of a complete output.
func openComplete(cfg Config) (*Content, error) {
	path := cfg.Output.Results()
	if cfg.Kind == Failures {
		path = cfg.Output.Errors()
	}

	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && cfg.Kind == Failures {
		// The file of the failed requests appears first. So it is not missing if the file of the
		// answered ones is there.
		if _, err := os.Stat(cfg.Output.Results()); err != nil {
			return nil, fmt.Errorf("open output: %w", err)
		}
		return &Content{cfg: cfg, text: &frameText{}, lines: func() int64 { return 0 }}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open output: %w", err)
	}

	c := &Content{cfg: cfg, file: file, close: file.Close}
	c.lines = sync.OnceValue(c.countLines)

	if c.text, err = openText(path, file); err != nil {
		file.Close()
		return nil, err
	}

	return c, nil
}

// openText returns the text of a file.
func openText(path string, file *os.File) (text, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("open output: %w", err)
	}

	frames, err := output.ReadSeekTable(file, info.Size())
	if err != nil {
		return nil, corruption(path, 0, err)
	}

	if frames == nil {
		return openStream(path, file, info.Size())
	}

	t := &frameText{decoders: &outputDecoders}
	t.read = func(i int, dec *output.FrameDecoder) ([]byte, error) {
		text, err := dec.ReadSeekFrame(file, frames[i])
		if err != nil {
			return nil, corruption(path, t.startOf(i), err)
		}
		return text, nil
	}

	for i, f := range frames {
		t.add(i, f.Size)
	}

	return t, nil
}

// Size returns the bytes of the text. It ends with a whole line.
func (c *Content) Size() int64 { return c.text.size() }

// Lines returns the number of lines. Those of a complete output are counted if its metadata
// does not have their number. It returns -1 if the output cannot be read; CopyRange returns
// the reason.
func (c *Content) Lines() int64 { return c.lines() }

// Complete reports whether the text is of the run's final file, and not of its journal.
func (c *Content) Complete() bool { return c.close == nil || c.file != nil }

// Packed returns the zstd file of the text as it lies on the disk, if the run is complete and
// has such lines. Close closes it.
func (c *Content) Packed() (*os.File, bool) { return c.file, c.file != nil }

// Close releases the files.
func (c *Content) Close() error {
	if c.close == nil {
		return nil
	}
	return c.close()
}

// CopyRange writes n bytes of the text from an offset on, in memory that does not grow with
// n. It returns the cause of the end of ctx, an error of w, and a [journal.CorruptionError] or
// a [CorruptionError] for damage. Bytes of a damaged frame are never written, with one
// exception: an output that is one large frame has its checksum at the end. A range up to its
// end is written except for the last bytes before the checksum is known, and so it is never
// whole if it is damaged. A range that ends earlier is not compared with the checksum.
func (c *Content) CopyRange(ctx context.Context, w io.Writer, offset, n int64) error {
	if size := c.Size(); offset < 0 || n < 0 || offset > size || n > size-offset {
		return fmt.Errorf("content: range of %d bytes at byte %d of %d", n, offset, size)
	}

	if n == 0 {
		return nil
	}

	return c.text.copyRange(ctx, w, offset, n)
}
