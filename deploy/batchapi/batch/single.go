package batch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/content"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// SingleConfig describes a run to serve as a batch.
type SingleConfig struct {
	// Runs has the run. Required.
	Runs *bus.RunStore
	// Run is the id of the run. Required.
	Run string
	// Inputs are the paths of the input files. Required.
	Inputs []string
	// Output names the files of the output. Required.
	Output output.Prefix
	// Format is the format of the output.
	Format output.Format
	// Log gets warnings. The zero value discards them.
	Log zerolog.Logger
}

// Single is a run as a batch, without a record on disk. Another part of the process makes the run and
// collects it. Nothing can be created here or deleted.
type Single struct {
	cfg   SingleConfig
	input filestore.File

	// mu guards the fields below.
	mu  sync.RWMutex
	now record
}

// OpenSingle returns a run of the bus as a batch.
func OpenSingle(ctx context.Context, cfg SingleConfig) (*Single, error) {
	m, err := cfg.Runs.Get(ctx, cfg.Run)
	if err != nil {
		return nil, err
	}

	s := &Single{
		cfg: cfg,
		input: filestore.File{
			ID:        filestore.DeriveID(m.CreatedAt, m.Run+" input"),
			Filename:  m.Input.Name(),
			Purpose:   filestore.PurposeBatch,
			Bytes:     m.Input.Bytes,
			SHA256:    m.Input.SHA256,
			CreatedAt: m.CreatedAt,
		},
	}

	s.now = record{
		Run:          m.Run,
		Endpoint:     findEndpoint(cfg.Inputs, m.Settings),
		InputFileID:  s.input.ID,
		Metadata:     map[string]string{},
		OutputFileID: filestore.DeriveID(m.CreatedAt, m.Run+" output"),
		ErrorFileID:  filestore.DeriveID(m.CreatedAt, m.Run+" errors"),
		State:        proto.StateValidating,
		CreatedAt:    m.CreatedAt,
		ordered:      cfg.Format.Ordered,
	}
	if m.Label != "" {
		s.now.Metadata["label"] = m.Label
	}
	if end := m.Policy.ExpiresAt; end != nil {
		s.now.ExpiresAt = *end
		s.now.CompletionWindow = terminal.FormatDuration(end.Sub(m.CreatedAt).Round(time.Second))
	}

	s.follow(m)

	return s, nil
}

// findEndpoint returns the endpoint of the first request of an input; empty if there is none. The
// producer reports an input that cannot be read.
func findEndpoint(inputs []string, settings proto.Settings) string {
	in, err := producer.NewReader(context.Background(), producer.Source{Files: inputs}, settings, nil)
	if err != nil {
		return ""
	}
	defer in.Close()

	for {
		item, err := in.Next()
		switch {
		case err != nil:
			return ""
		case item.Err == nil:
			return strings.Clone(item.URL)
		}
	}
}

// Run follows the run until ctx ends.
func (s *Single) Run(ctx context.Context) error {
	for m, err := range s.cfg.Runs.Watch(ctx, s.cfg.Run) {
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}

		s.follow(m)
	}

	return nil
}

// follow changes the batch by the manifest of its run.
func (s *Single) follow(m proto.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.now = s.now.follow(m, time.Now().UTC())
	if s.now.State.Ended() {
		s.now.addMetadata(s.cfg.Output)
	}
}

// current returns the record as it is now.
func (s *Single) current() record {
	s.mu.RLock()
	defer s.mu.RUnlock()

	return s.now
}

// Get returns the batch, or [ErrNotFound] for the id of another one.
func (s *Single) Get(id string) (Batch, error) {
	r := s.current()
	if id != r.id() {
		return Batch{}, ErrNotFound
	}

	return r.describe(), nil
}

// List returns the batch.
func (s *Single) List() []Batch {
	r := s.current()
	return []Batch{r.describe()}
}

// Cancel cancels the run, as [Service.Cancel] does.
func (s *Single) Cancel(ctx context.Context, id string) (Batch, error) {
	r := s.current()
	if id != r.id() {
		return Batch{}, ErrNotFound
	}

	if answer, err, done := answerCancel(&r); done {
		return answer, err
	}

	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	err := s.cfg.Runs.Cancel(ctx, r.Run)
	if err != nil && !errors.Is(err, bus.ErrWrongState) { // that has just moved on
		return r.describe(), fmt.Errorf("%w: %w", ErrUnavailable, err)
	}

	m, err := s.cfg.Runs.Get(ctx, r.Run)
	if err != nil {
		return r.describe(), fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.follow(m)

	r = s.current()
	if answer, err, done := answerCancel(&r); done {
		return answer, err
	}

	return r.describe(), nil
}

// OutputFiles returns the files of answers and of failed requests, with their sizes now.
func (s *Single) OutputFiles() (list []filestore.File) {
	r := s.current()
	for _, id := range []string{r.OutputFileID, r.ErrorFileID} {
		if f, err := s.OutputFile(id); err == nil {
			list = append(list, f)
		}
	}

	return list
}

// OutputFile returns one of [Single.OutputFiles], or [filestore.ErrNotFound].
func (s *Single) OutputFile(fileID string) (filestore.File, error) {
	c, _, err := s.OpenOutput(fileID)
	if err != nil {
		return filestore.File{}, err
	}
	defer c.Close()

	r := s.current()
	f := r.outputFile(fileID)
	f.Bytes = c.Size()

	return f, nil
}

// OutputTime returns the time at which a file of the output was created. It reports false for a file
// that is not there.
func (s *Single) OutputTime(fileID string) (time.Time, bool) {
	r := s.current()
	if !s.hasOutput(&r, fileID) {
		return time.Time{}, false
	}

	return r.outputFile(fileID).CreatedAt, true
}

// hasOutput reports whether an id is that of a file of the output, which is there.
func (s *Single) hasOutput(r *record, fileID string) bool {
	return (fileID == r.OutputFileID || fileID == r.ErrorFileID) && r.hasOutput(fileID)
}

// OpenOutput opens a file of the output, as [Service.OpenOutput] does.
func (s *Single) OpenOutput(fileID string) (*content.Content, Batch, error) {
	r := s.current()
	if !s.hasOutput(&r, fileID) {
		return nil, Batch{}, filestore.ErrNotFound
	}

	c, err := r.openContent(s.cfg.Output, s.cfg.Format.Plain, fileID)
	if errors.Is(err, os.ErrNotExist) {
		s.cfg.Log.Error().Err(err).Msg("the output of the run is not in its folder")
		err = fmt.Errorf("%w: %w", filestore.ErrNotFound, err)
	}
	if err != nil {
		return nil, Batch{}, err
	}

	return c, r.describe(), nil
}

// ContentError is the error of a file that is there, but whose content cannot be sent.
type ContentError struct {
	// Message is a sentence with the reason.
	Message string
}

// Error implements error.
func (e *ContentError) Error() string { return e.Message }

// InputFiles returns the input of the run.
func (s *Single) InputFiles() *SingleInput { return &SingleInput{s.input, s.cfg.Inputs} }

// SingleInput is the input of a run as one file.
type SingleInput struct {
	file  filestore.File
	paths []string
}

// List returns the file.
func (in *SingleInput) List() []filestore.File { return []filestore.File{in.file} }

// Get returns the file, or [filestore.ErrNotFound] for another id.
func (in *SingleInput) Get(id string) (filestore.File, error) {
	if id != in.file.ID {
		return filestore.File{}, filestore.ErrNotFound
	}
	return in.file, nil
}

// Open opens the file. The error is a [ContentError] if the input is not one file of plain text.
func (in *SingleInput) Open(id string) (*os.File, filestore.File, error) {
	f, err := in.Get(id)
	if err != nil {
		return nil, f, err
	}

	if n := len(in.paths); n > 1 {
		return nil, f, refuseContent("is %d files", n)
	}

	compression, err := jsonl.Compression(in.paths[0])
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, f, refuseContent("is no longer in its folder")
	case err != nil:
		return nil, f, err
	case compression != "":
		return nil, f, refuseContent("is compressed with %s", compression)
	}

	data, err := os.Open(in.paths[0])
	if err != nil {
		return nil, f, err
	}

	info, err := data.Stat()
	if err != nil {
		data.Close()
		return nil, f, err
	}
	f.Bytes = info.Size()

	return data, f, nil
}

// refuseContent returns the error of an input that is not one file of plain text.
func refuseContent(format string, args ...any) error {
	return &ContentError{"The input of this run " + fmt.Sprintf(format, args...) +
		": this server sends an input only if that is one file of plain text."}
}
