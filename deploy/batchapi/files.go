package batchapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
)

// purposes are the purposes that a client may give to a file.
var purposes = []string{"assistants", filestore.PurposeBatch, "fine-tune", "vision", "user_data", "evals"}

// The least and most seconds after which a file may expire.
const (
	minExpirySeconds = 3600
	maxExpirySeconds = 30 * 24 * 3600
)

// twinAge is the age up to which an equal file or batch is the one of a repeated request.
const twinAge = 10 * time.Minute

// fileInput has the id of a file.
type fileInput struct {
	ID string `path:"file_id" doc:"The id of the file."`
}

// fileOutput has a file.
type fileOutput struct{ Body fileObject }

// addFiles adds the routes of files.
func (s *server) addFiles() {
	addOperation(s, huma.Operation{
		OperationID: "create-file",
		Method:      http.MethodPost,
		Path:        "/v1/files",
		Summary:     "Upload a file",
		RequestBody: describeForm("file", map[string]*huma.Schema{
			"purpose":               {Type: "string", Enum: toAny(purposes)},
			"expires_after[anchor]": {Type: "string", Enum: []any{"created_at"}},
			"expires_after[seconds]": {
				Type:    "integer",
				Minimum: new(minExpirySeconds * 1.0),
				Maximum: new(maxExpirySeconds * 1.0),
			},
		}, "purpose"),
	}, s.createFile)
	addOperation(s, huma.Operation{
		OperationID: "list-files",
		Method:      http.MethodGet,
		Path:        "/v1/files",
		Summary:     "List files, including the output files of batches",
	}, s.listFiles)
	addOperation(s, huma.Operation{
		OperationID: "get-file",
		Method:      http.MethodGet,
		Path:        "/v1/files/{file_id}",
		Summary:     "Get a file",
	}, s.getFile)
	addOperation(s, huma.Operation{
		OperationID: "delete-file",
		Method:      http.MethodDelete,
		Path:        "/v1/files/{file_id}",
		Summary:     "Delete a file",
	}, s.deleteFile)
	addOperation(s, huma.Operation{
		OperationID: "get-file-content",
		Method:      http.MethodGet,
		Path:        "/v1/files/{file_id}/content",
		Summary:     "Read a file; HEAD works as well",
		Responses:   describeContent(),
	}, s.getContent)
}

// createFile stores the file of a form.
func (s *server) createFile(ctx context.Context, _ *struct{}) (*fileOutput, error) {
	x := exchangeOf(ctx)

	file, err := s.receiveFile(ctx, x)
	if err != nil {
		drainBody(x)
		return nil, err
	}

	return &fileOutput{toFileObject(file)}, nil
}

// receiveFile stores the file of a form, unless the request is a repetition.
func (s *server) receiveFile(ctx context.Context, x *exchange) (filestore.File, error) {
	if n := len(x.idempotencyKey()); n > batch.MaxIdempotencyKey {
		return filestore.File{}, newFailure(http.StatusBadRequest, "", "invalid_idempotency_key",
			"The idempotency key has %d bytes: use at most %d.", n, batch.MaxIdempotencyKey)
	}

	form, err := openForm(x.request, "file", "purpose", "expires_after", "expires_after[anchor]", "expires_after[seconds]")
	if err != nil {
		return filestore.File{}, err
	}

	part, err := form.nextFile()
	if err != nil {
		return filestore.File{}, err
	}

	// Fields before the file are checked before the file is read.
	if purpose, given := form.values["purpose"]; given {
		if err := checkPurpose(purpose); err != nil {
			return filestore.File{}, err
		}
	}

	pending, err := s.Files.Begin(ctx, bodyReader{part})
	if err != nil {
		return filestore.File{}, err
	}
	defer pending.Abort()

	if err := form.finish(); err != nil {
		return filestore.File{}, err
	}

	if err := checkPurpose(form.values["purpose"]); err != nil {
		return filestore.File{}, err
	}

	expiry, err := parseExpiry(form.values)
	if err != nil {
		return filestore.File{}, err
	}

	return s.commitFile(x, pending, filestore.File{
		Owner:          x.key.ID,
		Filename:       cleanFilename(part.FileName()),
		Purpose:        form.values["purpose"],
		SHA256:         pending.SHA256(),
		ExpiresAfter:   expiry,
		IdempotencyKey: x.idempotencyKey(),
	})
}

// commitFile puts a file into the store, or returns the file that an earlier attempt of the client
// has stored.
func (s *server) commitFile(
	x *exchange, pending *filestore.Pending, file filestore.File,
) (filestore.File, error) {
	s.commits.Lock()
	defer s.commits.Unlock()

	if file.IdempotencyKey != "" {
		earlier, ok := s.Files.FindKeyed(file.Owner, file.IdempotencyKey)
		switch {
		case ok && earlier.IsTwin(file):
			return earlier, nil
		case ok:
			return filestore.File{}, newFailure(http.StatusBadRequest, "", "idempotency_key_reused",
				"The idempotency key was used for file %s, with other bytes, another name or another purpose: use a new key.",
				earlier.ID)
		}
	} else if x.retried() {
		if twin, ok := s.Files.FindTwin(file, time.Now().Add(-twinAge)); ok {
			return twin, nil
		}
	}

	return pending.Commit(file)
}

// checkPurpose checks the purpose of a file.
func checkPurpose(purpose string) error {
	switch {
	case purpose == "":
		return refuse("purpose", "The field purpose is missing: give %q for the input of a batch.", filestore.PurposeBatch)
	case !slices.Contains(purposes, purpose):
		return refuse("purpose", "The purpose is %q, and must be one of %s.", purpose, strings.Join(purposes, ", "))
	}

	return nil
}

// parseExpiry returns the time after which a file expires, 0 for never.
func parseExpiry(values map[string]string) (time.Duration, error) {
	anchor, anchored := values["expires_after[anchor]"]
	text, given := values["expires_after[seconds]"]
	if _, whole := values["expires_after"]; whole {
		return 0, refuse("expires_after", "The form has the field expires_after: "+
			"send expires_after[anchor] and expires_after[seconds].")
	}
	if !anchored && !given {
		return 0, nil
	}

	seconds, _ := parseDigits(text)

	return checkExpiry("expires_after", anchor, seconds)
}

// checkExpiry returns the time after which a file expires.
func checkExpiry(param, anchor string, seconds int64) (time.Duration, error) {
	switch {
	case anchor == "":
		return 0, refuse(param+".anchor", "The field %s.anchor is missing, and must be \"created_at\".", param)
	case anchor != "created_at":
		return 0, refuse(param+".anchor", "The field %s.anchor is %q, and must be \"created_at\".", param, anchor)
	case seconds < minExpirySeconds || seconds > maxExpirySeconds:
		return 0, refuse(param+".seconds", "The field %s.seconds must be a number from %d (one hour) to %d (30 days).",
			param, minExpirySeconds, maxExpirySeconds)
	}

	return time.Duration(seconds) * time.Second, nil
}

// listFilesInput has the parameters of a list of files.
type listFilesInput struct {
	After   string `query:"after" doc:"The id of a file: the list starts behind it."`
	Limit   int    `query:"limit" default:"10000" minimum:"1" maximum:"10000"`
	Order   string `query:"order" default:"desc" enum:"asc,desc" doc:"By the time of creation."`
	Purpose string `query:"purpose" doc:"Only files of this purpose."`
}

// listFilesOutput has a page of files.
type listFilesOutput struct{ Body listObject[fileObject] }

// listFiles lists the files that a client sees.
func (s *server) listFiles(ctx context.Context, in *listFilesInput) (*listFilesOutput, error) {
	x := exchangeOf(ctx)

	all := slices.DeleteFunc(append(s.files.List(), s.batches.OutputFiles()...), func(f filestore.File) bool {
		return !x.sees(f.Owner)
	})
	slices.SortFunc(all, compareFiles)
	if in.Order == "desc" {
		slices.Reverse(all)
	}

	begin, ok := s.findFilesAfter(x, all, in.After, in.Order == "desc")
	if !ok {
		return nil, refuse("after", "The parameter after is %q, and must be the id of a file: "+
			"last_id of the page before.", in.After)
	}

	rest := slices.DeleteFunc(all[begin:], func(f filestore.File) bool {
		return in.Purpose != "" && f.Purpose != in.Purpose
	})

	return &listFilesOutput{cutPage(rest, func(f filestore.File) string { return f.ID }, in.Limit, toFileObject)}, nil
}

// getFile answers a file.
func (s *server) getFile(ctx context.Context, in *fileInput) (*fileOutput, error) {
	file, _, err := s.findFile(exchangeOf(ctx), in.ID)
	if err != nil {
		return nil, err
	}

	return &fileOutput{toFileObject(file)}, nil
}

// findFile returns a file that the client sees, and whether it is the output of a batch.
func (s *server) findFile(x *exchange, id string) (file filestore.File, isOutput bool, err error) {
	file, isOutput, err = s.findAnyFile(id)
	if errors.Is(err, filestore.ErrNotFound) || err == nil && !x.sees(file.Owner) {
		return filestore.File{}, false, noSuchFile(id)
	}

	return file, isOutput, err
}

// findAnyFile returns a file, whichever key it belongs to, and whether it is the output of a batch.
func (s *server) findAnyFile(id string) (file filestore.File, isOutput bool, err error) {
	file, err = s.files.Get(id)
	if errors.Is(err, filestore.ErrNotFound) {
		file, err = s.batches.OutputFile(id)
		isOutput = true
	}

	return file, isOutput, err
}

// deleteFileOutput has a deleted file.
type deleteFileOutput struct{ Body deletedObject }

// deleteFile deletes a file that no batch needs.
func (s *server) deleteFile(ctx context.Context, in *fileInput) (*deleteFileOutput, error) {
	x := exchangeOf(ctx)

	_, isOutput, err := s.findFile(x, in.ID)
	if err != nil {
		return nil, err
	}

	if isOutput {
		err = s.Batches.DeleteOutput(in.ID)
	} else {
		err = s.deleteInput(x, in.ID)
	}
	switch {
	case errors.Is(err, filestore.ErrNotFound):
		return nil, noSuchFile(in.ID)
	case err != nil:
		return nil, err
	}

	return &deleteFileOutput{deletedObject{ID: in.ID, Object: "file", Deleted: true}}, nil
}

// deleteInput deletes a file of the store, unless a batch needs it. The refusal names only a batch that the
// client sees.
func (s *server) deleteInput(x *exchange, id string) error {
	if s.Batches.Uses(id) {
		for _, b := range s.Batches.List() {
			if b.InputFileID == id && !b.State.Ended() && x.sees(b.Owner) {
				return newFailure(http.StatusBadRequest, "id", "file_in_use",
					"File %s is the input of %s: cancel this batch, or wait until it has ended.", id, b.ID)
			}
		}
	}

	return s.Batches.DeleteFile(id)
}

// bodyReader reads a file of a body. The error of one that ends early is for the client.
type bodyReader struct{ io.Reader }

// Read implements io.Reader.
func (r bodyReader) Read(p []byte) (n int, err error) {
	n, err = r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = describeFormError(err)
	}

	return n, err
}

// drainBody reads the rest of a body whose request is refused, for a limited time: many clients read no
// answer before they have sent all. A client that waits for a word before it sends its body
// (Expect: 100-continue) gets the refusal instead.
func drainBody(x *exchange) {
	const longest = 10 * time.Second

	if !x.body.begun && x.request.Header.Get("Expect") != "" {
		return
	}

	step := make([]byte, 64<<10)
	for begin := time.Now(); time.Since(begin) < longest; {
		if _, err := x.body.Read(step); err != nil {
			return
		}
	}
}

// describeForm describes a form with a file and other fields.
func describeForm(file string, fields map[string]*huma.Schema, required ...string) *huma.RequestBody {
	fields[file] = &huma.Schema{Type: "string", Format: "binary"}

	return &huma.RequestBody{
		Required: true,
		Content: map[string]*huma.MediaType{"multipart/form-data": {Schema: &huma.Schema{
			Type:       "object",
			Properties: fields,
			Required:   append(required, file),
		}}},
	}
}

// toAny returns texts as values of any type.
func toAny(texts []string) []any {
	var values []any
	for _, t := range texts {
		values = append(values, t)
	}

	return values
}
