package batchapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto"
)

// fakeBatches has batches whose states and outputs are those that a test sets.
type fakeBatches struct {
	files *filestore.Store

	mu       sync.Mutex
	batches  []batch.Batch // oldest first
	requests []batch.Request
	outputs  map[string]*fakeOutput
	err      error // of Create and Cancel
}

// add adds a batch.
func (f *fakeBatches) add(b batch.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.batches = append(f.batches, b)
}

// setOutput gives a batch an output.
func (f *fakeBatches) setOutput(fileID string, out *fakeOutput) {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.outputs[fileID] = out
}

func (f *fakeBatches) Create(_ context.Context, q batch.Request) (batch.Batch, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if f.err != nil {
		return batch.Batch{}, false, f.err
	}

	if q.Retried || q.IdempotencyKey != "" {
		input, _ := f.files.Get(q.InputFileID)
		for i, earlier := range f.requests {
			file, _ := f.files.Get(earlier.InputFileID)
			if file.SHA256 == input.SHA256 {
				return f.batches[i], true, nil
			}
		}
	}

	id := fmt.Sprintf("batch_%d", len(f.batches))
	f.requests = append(f.requests, q)
	f.batches = append(f.batches, batch.Batch{
		ID:               id,
		Owner:            q.Owner,
		Endpoint:         q.Endpoint,
		InputFileID:      q.InputFileID,
		CompletionWindow: q.CompletionWindow,
		Metadata:         q.Metadata,
		State:            proto.StateValidating,
		CreatedAt:        time.Now(),
	})

	return f.batches[len(f.batches)-1], false, nil
}

func (f *fakeBatches) Get(id string) (batch.Batch, error) {
	for _, b := range f.List() {
		if b.ID == id {
			return b, nil
		}
	}
	return batch.Batch{}, batch.ErrNotFound
}

func (f *fakeBatches) List() []batch.Batch {
	f.mu.Lock()
	defer f.mu.Unlock()

	list := slices.Clone(f.batches)
	slices.Reverse(list)

	return list
}

func (f *fakeBatches) Cancel(_ context.Context, id string) (batch.Batch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if f.err != nil {
		return batch.Batch{}, f.err
	}

	for i := range f.batches {
		if f.batches[i].ID == id {
			f.batches[i].State = proto.StateCancelling
			f.batches[i].CancellingAt = time.Now()
			return f.batches[i], nil
		}
	}

	return batch.Batch{}, batch.ErrNotFound
}

func (f *fakeBatches) DeleteFile(fileID string) error {
	if f.Uses(fileID) {
		return &batch.RequestError{Message: "A batch needs the file.", Code: "file_in_use"}
	}
	return f.files.Delete(fileID)
}

func (f *fakeBatches) Uses(fileID string) bool {
	return slices.ContainsFunc(f.List(), func(b batch.Batch) bool {
		return b.InputFileID == fileID && !b.State.Ended()
	})
}

func (f *fakeBatches) OutputFiles() []filestore.File {
	var files []filestore.File
	for _, b := range f.List() {
		for _, id := range []string{b.OutputFileID, b.ErrorFileID} {
			f.mu.Lock()
			out := f.outputs[id]
			f.mu.Unlock()

			if out != nil {
				files = append(files, filestore.File{
					ID:        id,
					Owner:     b.Owner,
					Filename:  b.ID + "_output.jsonl",
					Purpose:   filestore.PurposeBatchOutput,
					Bytes:     out.Size(),
					CreatedAt: b.CreatedAt,
				})
			}
		}
	}

	return files
}

func (f *fakeBatches) OutputFile(fileID string) (filestore.File, error) {
	for _, file := range f.OutputFiles() {
		if file.ID == fileID {
			return file, nil
		}
	}
	return filestore.File{}, filestore.ErrNotFound
}

func (f *fakeBatches) OutputTime(fileID string) (time.Time, bool) {
	for _, b := range f.List() {
		if b.OutputFileID == fileID || b.ErrorFileID == fileID {
			return b.CreatedAt, true
		}
	}
	return time.Time{}, false
}

func (f *fakeBatches) OpenOutput(fileID string) (Output, batch.Batch, error) {
	for _, b := range f.List() {
		if b.OutputFileID == fileID || b.ErrorFileID == fileID {
			f.mu.Lock()
			defer f.mu.Unlock()

			if out := f.outputs[fileID]; out != nil {
				return out, b, nil
			}
		}
	}

	return nil, batch.Batch{}, filestore.ErrNotFound
}

func (f *fakeBatches) DeleteOutput(fileID string) error {
	f.mu.Lock()
	defer f.mu.Unlock()

	delete(f.outputs, fileID)

	return nil
}

// fakeOutput is a text.
type fakeOutput struct {
	text     string
	complete bool
	packed   *os.File
	failAt   int64 // the byte at which reading fails; 0: none, negative: the first
	closed   int
}

func (o *fakeOutput) Size() int64 { return int64(len(o.text)) }

func (o *fakeOutput) Lines() int64 { return int64(bytes.Count([]byte(o.text), []byte("\n"))) }

func (o *fakeOutput) Complete() bool { return o.complete }

func (o *fakeOutput) CopyRange(_ context.Context, w io.Writer, offset, n int64) error {
	if o.failAt != 0 {
		if o.failAt > 0 {
			io.WriteString(w, o.text[offset:o.failAt])
		}
		return fmt.Errorf("the disk fails at byte %d", o.failAt)
	}

	_, err := io.WriteString(w, o.text[offset:offset+n])

	return err
}

func (o *fakeOutput) Packed() (*os.File, bool) { return o.packed, o.packed != nil }

func (o *fakeOutput) Close() error {
	o.closed++
	return nil
}
