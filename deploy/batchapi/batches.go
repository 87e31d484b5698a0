package batchapi

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto"
)

// defaultWindow is the completion window of a batch whose client gives none.
const defaultWindow = "24h"

// requestsName is the name of a file with the requests of a body.
const requestsName = "requests.jsonl"

// cancelBatch is the operation that cancels a batch.
const cancelBatch = "cancel-batch"

// batchInput has the id of a batch.
type batchInput struct {
	ID string `path:"batch_id" doc:"The id of the batch."`
}

// batchOutput has a batch.
type batchOutput struct{ Body batchObject }

// addBatches adds the routes of batches.
func (s *server) addBatches() {
	addOperation(s, huma.Operation{
		OperationID: "create-batch",
		Method:      http.MethodPost,
		Path:        "/v1/batches",
		Summary:     "Create a batch, of the requests of a file or of the body",
		RequestBody: &huma.RequestBody{Required: true, Content: describeJSON[createBatchBody](s)},
	}, s.createBatch)
	addOperation(s, huma.Operation{
		OperationID: "list-batches",
		Method:      http.MethodGet,
		Path:        "/v1/batches",
		Summary:     "List batches, newest first",
	}, s.listBatches)
	addOperation(s, huma.Operation{
		OperationID: "get-batch",
		Method:      http.MethodGet,
		Path:        "/v1/batches/{batch_id}",
		Summary:     "Get a batch",
	}, s.getBatch)
	addOperation(s, huma.Operation{
		OperationID: cancelBatch,
		Method:      http.MethodPost,
		Path:        "/v1/batches/{batch_id}/cancel",
		Summary:     "Cancel a batch",
	}, s.cancelBatch)
	addOperation(s, huma.Operation{
		OperationID: "get-batch-results",
		Method:      http.MethodGet,
		Path:        "/v1/batches/{batch_id}/results",
		Summary:     "Read all results of a batch as JSON lines: the answers, and then the failed requests",
		Responses:   describeResults(),
	}, s.getResults)
}

// createBatch creates a batch, unless the request is a repetition.
func (s *server) createBatch(ctx context.Context, _ *struct{}) (*batchOutput, error) {
	x := exchangeOf(ctx)

	b, err := s.receiveBatch(ctx, x)
	if err != nil {
		drainBody(x)
		return nil, err
	}

	return &batchOutput{toBatchObject(b)}, nil
}

// receiveBatch reads the body of a new batch and creates the batch.
func (s *server) receiveBatch(ctx context.Context, x *exchange) (batch.Batch, error) {
	var large largeTurn
	defer large.end()

	fields, requests, err := readCreateBatch(x.request.Body,
		func() error { return large.begin(ctx, s.large) },
		func(lines io.Reader) (*filestore.Pending, error) { return s.Files.Begin(ctx, lines) })
	if err != nil {
		return batch.Batch{}, err
	}

	if requests != nil {
		defer requests.Abort()
	}

	switch {
	case fields.InputFileID == "" && requests == nil:
		return batch.Batch{}, refuse("input_file_id",
			"The batch has no requests: give input_file_id, the id of an uploaded file, or requests, an array.")
	case fields.InputFileID != "" && requests != nil:
		return batch.Batch{}, refuse("requests", "The batch has input_file_id and requests: give one of them.")
	}

	request := batch.Request{
		Owner:            x.key.ID,
		Endpoint:         fields.Endpoint,
		InputFileID:      fields.InputFileID,
		CompletionWindow: cmp.Or(fields.CompletionWindow, defaultWindow),
		Metadata:         fields.Metadata,
		Model:            fields.Model,
		IdempotencyKey:   x.idempotencyKey(),
		Retried:          x.retried(),
	}

	if e := fields.OutputExpires; e != nil {
		if request.OutputExpiresAfter, err = checkExpiry("output_expires_after", e.Anchor, e.Seconds); err != nil {
			return batch.Batch{}, err
		}
	}

	if requests != nil {
		return s.createInline(ctx, x, request, requests)
	}

	if err := s.checkInput(x, request.InputFileID); err != nil {
		return batch.Batch{}, err
	}

	b, _, err := s.Batches.Create(ctx, request)

	return b, err
}

// checkInput refuses an id that is not that of an input. A file of another key looks like one that is not
// there. One that is not there may be that of a batch that an earlier attempt has created.
func (s *server) checkInput(x *exchange, id string) error {
	if kind := kindOfID(id); kind != "" && kind != "a file" {
		return newFailure(http.StatusBadRequest, "input_file_id", "file_not_found",
			"There is no file %s: this is the id of %s.", id, kind)
	}

	file, isOutput, err := s.findAnyFile(id)
	switch {
	case errors.Is(err, filestore.ErrNotFound):
		return nil // Create refuses it, or knows it
	case err != nil:
		return err
	case !x.sees(file.Owner):
		return newFailure(http.StatusBadRequest, "input_file_id", "file_not_found",
			"There is no file %q: upload it with the purpose \"batch\" first.", id)
	case isOutput:
		return newFailure(http.StatusBadRequest, "input_file_id", "invalid_file_purpose",
			"File %s has the purpose %q: upload it with the purpose \"batch\".", id, file.Purpose)
	}

	return nil
}

// createInline creates a batch of the requests of a body. The batches know a repetition by the bytes of its
// requests, so the file of a repetition is stored and deleted.
func (s *server) createInline(
	ctx context.Context, x *exchange, request batch.Request, requests *filestore.Pending,
) (batch.Batch, error) {
	file, err := requests.Commit(filestore.File{
		Owner:    x.key.ID,
		Filename: requestsName,
		Purpose:  filestore.PurposeBatch,
		Inline:   true,
	})
	if err != nil {
		return batch.Batch{}, err
	}

	request.InputFileID = file.ID
	b, _, err := s.Batches.Create(ctx, request)

	if err != nil || b.InputFileID != file.ID {
		if err := s.Batches.DeleteFile(file.ID); err != nil {
			s.Log.Warn().Err(err).Str("file", file.ID).Msg("failed to delete the requests of a batch that exists already")
		}
	}

	return b, err
}

// listBatchesInput has the parameters of a list of batches.
type listBatchesInput struct {
	After string `query:"after" doc:"The id of a batch: the list starts behind it."`
	Limit int    `query:"limit" default:"20" minimum:"1" maximum:"100"`
}

// listBatchesOutput has a page of batches.
type listBatchesOutput struct{ Body listObject[batchObject] }

// listBatches lists the batches that a client sees.
func (s *server) listBatches(ctx context.Context, in *listBatchesInput) (*listBatchesOutput, error) {
	x := exchangeOf(ctx)

	all := slices.DeleteFunc(s.batches.List(), func(b batch.Batch) bool { return !x.sees(b.Owner) })
	if in.After != "" {
		at := slices.IndexFunc(all, func(b batch.Batch) bool { return b.ID == in.After })
		if at < 0 {
			return nil, refuse("after", "The parameter after is %q, and must be the id of a batch: "+
				"last_id of the page before.", in.After)
		}
		all = all[at+1:]
	}

	page := cutPage(all, func(b batch.Batch) string { return b.ID }, in.Limit, toBatchObject)
	s.addProblems(ctx, all[:len(page.Data)], page.Data)

	return &listBatchesOutput{page}, nil
}

// getBatch answers a batch.
func (s *server) getBatch(ctx context.Context, in *batchInput) (*batchOutput, error) {
	b, err := s.findBatch(exchangeOf(ctx), in.ID)
	if err != nil {
		return nil, err
	}

	objects := []batchObject{toBatchObject(b)}
	s.addProblems(ctx, []batch.Batch{b}, objects)

	return &batchOutput{objects[0]}, nil
}

// problemAfter is the age from which a batch without a worker has a problem.
const problemAfter = 10 * time.Second

// addProblems names the models of batches at work that no worker serves. While the bus does not answer, it
// names none.
func (s *server) addProblems(ctx context.Context, batches []batch.Batch, objects []batchObject) {
	var workers []proto.WorkerInfo
	known := false
	for i, b := range batches {
		if b.State != proto.StateInProgress || b.Problem != "" || time.Since(b.InProgressAt) < problemAfter {
			continue
		}

		if !known {
			var err error
			if workers, err = s.Models(ctx); err != nil {
				return
			}
			known = true
		}

		var missing []string
		for _, model := range b.Models {
			serves := func(w proto.WorkerInfo) bool { return w.Ready && proto.Serves(w.Models, model) }
			if model != "" && !slices.ContainsFunc(workers, serves) {
				missing = append(missing, model)
			}
		}
		if len(missing) > 0 {
			objects[i].Problem = toNullable("no worker serves " + strings.Join(missing, ", "))
		}
	}
}

// findBatch returns a batch that the client sees.
func (s *server) findBatch(x *exchange, id string) (batch.Batch, error) {
	b, err := s.batches.Get(id)
	if errors.Is(err, batch.ErrNotFound) || err == nil && !x.sees(b.Owner) {
		if b, err := s.batches.Get(batchPrefix + id); err == nil && x.sees(b.Owner) {
			return batch.Batch{}, newFailure(http.StatusNotFound, "id", "",
				"There is no batch %s: did you mean %s?", id, b.ID)
		}
		return batch.Batch{}, noSuchBatch(id)
	}

	return b, err
}

// cancelBatch cancels a batch.
func (s *server) cancelBatch(ctx context.Context, in *batchInput) (*batchOutput, error) {
	if _, err := s.findBatch(exchangeOf(ctx), in.ID); err != nil {
		return nil, err
	}

	b, err := s.batches.Cancel(ctx, in.ID)
	if errors.Is(err, batch.ErrNotFound) {
		return nil, noSuchBatch(in.ID)
	}
	if err != nil {
		return nil, err
	}

	return &batchOutput{toBatchObject(b)}, nil
}

// getResults answers the answers and then the failed requests of a batch.
func (s *server) getResults(ctx context.Context, in *batchInput) (*contentOutput, error) {
	x := exchangeOf(ctx)

	b, err := s.findBatch(x, in.ID)
	if err != nil {
		return nil, err
	}

	var outs []Output
	closeAll := func() {
		for _, out := range outs {
			out.Close()
		}
	}

	size := int64(0)
	complete := b.State.Ended()
	for _, id := range []string{b.OutputFileID, b.ErrorFileID} {
		if id == "" {
			continue
		}

		out, _, err := s.batches.OpenOutput(id)
		if errors.Is(err, filestore.ErrNotFound) {
			closeAll()
			return nil, newFailure(http.StatusNotFound, "id", "",
				"The results of %s are gone: its file %s has expired or was deleted.", b.ID, id)
		}
		if err != nil {
			closeAll()
			return nil, err
		}

		outs = append(outs, out)
		size += out.Size()
		complete = complete && out.Complete()
	}

	header := http.Header{}
	setContentHeader(header, b.ID+".jsonl")
	header.Set("Content-Type", "application/jsonl")
	header.Set("Content-Length", strconv.FormatInt(size, 10))
	if !complete {
		lines := int64(0)
		for _, out := range outs {
			lines += out.Lines()
		}
		header.Set(headerIncomplete, "true")
		header.Set(headerLastLine, strconv.FormatInt(lines, 10))
		header.Set("Cache-Control", "no-store")
	}

	return &contentOutput{func(huma.Context) {
		defer closeAll()
		s.sendBody(x, b.ID, http.StatusOK, header, func(w io.Writer) error {
			for _, out := range outs {
				if err := out.CopyRange(ctx, w, 0, out.Size()); err != nil {
					return err
				}
			}
			return nil
		})
	}}, nil
}

// describeResults describes the answers with the results of a batch.
func describeResults() map[string]*huma.Response {
	whole := describeContent()["200"]
	whole.Description = "The lines."
	whole.Content = map[string]*huma.MediaType{"application/jsonl": {Schema: &huma.Schema{Type: "string"}}}

	return map[string]*huma.Response{"200": whole}
}
