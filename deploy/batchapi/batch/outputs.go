package batch

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/content"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
)

// outputSize is the size of an output file with a number of lines, after a number of retries of
// the run.
type outputSize struct {
	lines, retries int
	bytes          int64
}

// OutputFiles returns the files of answers and of failed requests that all batches have, with their
// sizes now. They are in no order.
func (s *Service) OutputFiles() (list []filestore.File) {
	for _, r := range s.listRecords(func(r *record) bool { return r.hasAnswers() || r.hasFailures() }) {
		for _, id := range []string{r.OutputFileID, r.ErrorFileID} {
			if f, ok := s.describeOutput(r, id); ok {
				list = append(list, f)
			}
		}
	}

	return list
}

// OutputFile returns one of [Service.OutputFiles], or [filestore.ErrNotFound].
func (s *Service) OutputFile(fileID string) (filestore.File, error) {
	r := s.findOutput(fileID)
	if r == nil {
		return filestore.File{}, filestore.ErrNotFound
	}

	f, ok := s.describeOutput(r, fileID)
	if !ok {
		return filestore.File{}, filestore.ErrNotFound
	}

	return f, nil
}

// OutputTime returns the time at which a file of an output was created, also if the file is
// deleted. It reports false for a file that never was there.
func (s *Service) OutputTime(fileID string) (time.Time, bool) {
	r := s.findOutput(fileID)
	if r == nil {
		return time.Time{}, false
	}

	at := r.OutputAt
	if fileID == r.ErrorFileID {
		at = r.ErrorsAt
	}

	return at, !at.IsZero()
}

// findOutput returns the record of the batch that has an id for a file of its output, or nil.
func (s *Service) findOutput(fileID string) *record {
	s.mu.RLock()
	defer s.mu.RUnlock()

	return s.all[s.byFile[fileID]]
}

// hasOutput reports whether a file of the output is there.
func (r *record) hasOutput(fileID string) bool {
	if fileID == r.OutputFileID {
		return r.hasAnswers() && !r.OutputDeleted
	}
	return r.hasFailures() && !r.ErrorsDeleted
}

// describeOutput returns a file of an output, if there is one.
func (s *Service) describeOutput(r *record, fileID string) (filestore.File, bool) {
	if !r.hasOutput(fileID) {
		return filestore.File{}, false
	}

	f := r.outputFile(fileID)
	f.Bytes = s.measureOutput(r, fileID)

	return f, true
}

// outputFile returns a file of an output, without its size.
func (r *record) outputFile(fileID string) filestore.File {
	f := filestore.File{
		ID:        fileID,
		Owner:     r.Owner,
		Purpose:   filestore.PurposeBatchOutput,
		Filename:  r.Run + "_output.jsonl",
		CreatedAt: r.OutputAt,
		ExpiresAt: r.outputExpiresAt(),
	}
	if fileID == r.ErrorFileID {
		f.Filename, f.CreatedAt = r.Run+"_error.jsonl", r.ErrorsAt
	}

	return f
}

// measureOutput returns the size of a file of an output. It reads it again only if there are
// more lines.
func (s *Service) measureOutput(r *record, fileID string) int64 {
	lines := r.Counts.Completed
	if fileID == r.ErrorFileID {
		lines = r.Counts.Failed
	}

	s.mu.RLock()
	known, ok := s.sizes[fileID]
	s.mu.RUnlock()
	if ok && known.lines == lines && known.retries == r.Retries {
		return known.bytes
	}

	c, err := s.openContent(r, fileID)
	if errors.Is(err, fs.ErrNotExist) {
		s.logLostOutput(r, fileID, err)
		return 0
	}
	if err != nil {
		s.cfg.Log.Warn().Err(err).Str("run", r.Run).Msg("failed to read the size of an output; it is listed as empty")
		return 0
	}
	defer c.Close()

	s.mu.Lock()
	defer s.mu.Unlock()

	s.sizes[fileID] = outputSize{lines, r.Retries, c.Size()}

	return c.Size()
}

// logLostOutput logs once that a file of an output is not in its folder: clients list files often.
func (s *Service) logLostOutput(r *record, fileID string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if !s.noted[fileID] {
		s.noted[fileID] = true
		s.cfg.Log.Error().Err(err).Str("run", r.Run).
			Msg("the output of the batch is not in its folder; it is listed as empty")
	}
}

// openContent opens a file of an output.
func (s *Service) openContent(r *record, fileID string) (*content.Content, error) {
	return r.openContent(s.cfg.output(r.Run), s.cfg.Format.Plain, fileID)
}

// openContent opens a file of the output.
func (r *record) openContent(out output.Prefix, plain bool, fileID string) (*content.Content, error) {
	cfg := content.Config{
		Output: out,
		Kind:   content.Answers,
		Plain:  plain,
		Done:   r.Counts.Completed + r.Counts.Failed,
	}
	if fileID == r.ErrorFileID {
		cfg.Kind = content.Failures
	}

	return content.Open(cfg)
}

// OpenOutput opens a file of an output: the lines that are synced while the batch is at work,
// and all afterwards. The error wraps [filestore.ErrNotFound] if there is no such file, or it
// is not on the disk any more.
func (s *Service) OpenOutput(fileID string) (*content.Content, Batch, error) {
	r := s.findOutput(fileID)
	if r == nil || !r.hasOutput(fileID) {
		return nil, Batch{}, filestore.ErrNotFound
	}

	c, err := s.openContent(r, fileID)
	if errors.Is(err, fs.ErrNotExist) {
		s.logLostOutput(r, fileID, err)
		err = fmt.Errorf("%w: %w", filestore.ErrNotFound, err)
	}
	if err != nil {
		return nil, Batch{}, err
	}

	return c, r.describe(), nil
}

// DeleteOutput removes a file of an output. The error is a [RequestError] while the batch is at
// work, and [filestore.ErrNotFound] if there is no such file.
func (s *Service) DeleteOutput(fileID string) error {
	r := s.findOutput(fileID)
	switch {
	case r == nil || !r.hasOutput(fileID):
		return filestore.ErrNotFound
	case !r.State.Ended():
		return &RequestError{
			Message: fmt.Sprintf("File %s is the output of batch %s, which has not ended: cancel the batch, or wait for its end.",
				fileID, r.id()),
			Code: "file_in_use",
		}
	}

	return s.deleteOutput(r.Run, fileID)
}

// deleteOutput notes that a file of an output is deleted, and removes it from the disk.
func (s *Service) deleteOutput(run, fileID string) error {
	r, err := s.change(run, func(now *record) error {
		switch {
		case fileID == now.OutputFileID && !now.OutputDeleted:
			now.OutputDeleted = true
		case fileID == now.ErrorFileID && !now.ErrorsDeleted:
			now.ErrorsDeleted = true
		default:
			return errUnchanged
		}

		return nil
	})
	if err != nil {
		return err
	}

	return s.removeDeleted(r)
}

// removeDeleted removes the files of an output that are deleted. A journal has the lines of both.
func (s *Service) removeDeleted(r *record) error {
	out := s.cfg.output(r.Run)
	var paths []string
	if r.OutputDeleted {
		paths = append(paths, out.Results())
	}
	if r.ErrorsDeleted {
		paths = append(paths, out.Errors())
	}
	if (r.OutputDeleted || !r.hasAnswers()) && (r.ErrorsDeleted || !r.hasFailures()) {
		paths = append(paths, out.Journal())
	}

	for _, path := range paths {
		if err := atomicfile.Unlink(path); err != nil {
			return err
		}
	}

	return nil
}
