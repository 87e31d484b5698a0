package batchapi

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
)

// maxMimeType is the most bytes of a MIME type, see RFC 6838.
const maxMimeType = 255

// uploadInput has the id of an upload.
type uploadInput struct {
	ID string `path:"upload_id" doc:"The id of the upload."`
}

// uploadOutput has an upload.
type uploadOutput struct{ Body uploadObject }

// partOutput has a part of an upload.
type partOutput struct{ Body partObject }

// createUploadBody is the body that creates an upload. Members that are unknown are ignored.
type createUploadBody struct {
	_            struct{}      `additionalProperties:"true"`
	Filename     string        `json:"filename"`
	Purpose      string        `json:"purpose" enum:"assistants,batch,fine-tune,vision,user_data,evals"`
	Bytes        int64         `json:"bytes" minimum:"1" doc:"The size of the file. No limit but the disk."`
	MimeType     string        `json:"mime_type,omitempty" maxLength:"255"`
	ExpiresAfter *expiresAfter `json:"expires_after,omitempty"`
}

// completeUploadBody is the body that completes an upload. Members that are unknown are ignored.
type completeUploadBody struct {
	_       struct{} `additionalProperties:"true"`
	PartIDs []string `json:"part_ids" nullable:"false" doc:"The parts in the order of the file."`
	MD5     string   `json:"md5,omitempty" doc:"The MD5 of the file, in hexadecimal digits."`
}

// addUploads adds the routes of uploads.
func (s *server) addUploads() {
	addOperation(s, huma.Operation{
		OperationID: "create-upload",
		Method:      http.MethodPost,
		Path:        "/v1/uploads",
		Summary:     "Create an upload, for a file that comes in parts",
		RequestBody: &huma.RequestBody{Required: true, Content: describeJSON[createUploadBody](s)},
	}, s.createUpload)
	addOperation(s, huma.Operation{
		OperationID: "add-upload-part",
		Method:      http.MethodPost,
		Path:        "/v1/uploads/{upload_id}/parts",
		Summary:     "Add a part to an upload",
		RequestBody: describeForm("data", map[string]*huma.Schema{}),
	}, s.addPart)
	addOperation(s, huma.Operation{
		OperationID: "complete-upload",
		Method:      http.MethodPost,
		Path:        "/v1/uploads/{upload_id}/complete",
		Summary:     "Make a file of the parts of an upload",
		RequestBody: &huma.RequestBody{Required: true, Content: describeJSON[completeUploadBody](s)},
	}, s.completeUpload)
	addOperation(s, huma.Operation{
		OperationID: "cancel-upload",
		Method:      http.MethodPost,
		Path:        "/v1/uploads/{upload_id}/cancel",
		Summary:     "Cancel an upload",
	}, s.cancelUpload)
}

// createUpload creates an upload.
func (s *server) createUpload(ctx context.Context, _ *struct{}) (*uploadOutput, error) {
	x := exchangeOf(ctx)

	var body createUploadBody
	err := newBodyDecoder(x.request.Body).readMembers(map[string]any{
		"filename":      &body.Filename,
		"purpose":       &body.Purpose,
		"bytes":         &body.Bytes,
		"mime_type":     &body.MimeType,
		"expires_after": &body.ExpiresAfter,
	}, nil)
	if err == nil {
		err = checkPurpose(body.Purpose)
	}
	if err != nil {
		drainBody(x)
		return nil, err
	}

	upload := filestore.Upload{
		Owner:    x.key.ID,
		Filename: cleanFilename(body.Filename),
		Purpose:  body.Purpose,
		MimeType: body.MimeType,
		Bytes:    body.Bytes,
	}
	switch {
	case upload.Filename == "":
		return nil, refuse("filename", "The member filename is missing.")
	case len(upload.MimeType) > maxMimeType:
		return nil, refuse("mime_type", "The member mime_type has %d bytes: use at most %d.", len(upload.MimeType),
			maxMimeType)
	case upload.Bytes < 1:
		return nil, refuse("bytes", "The member bytes is %d, and must be the size of the file, of at least 1.", upload.Bytes)
	}

	if e := body.ExpiresAfter; e != nil {
		if upload.FileExpiresAfter, err = checkExpiry("expires_after", e.Anchor, e.Seconds); err != nil {
			return nil, err
		}
	}

	upload, err = s.Files.CreateUpload(upload)
	if err != nil {
		return nil, err
	}

	return &uploadOutput{toUploadObject(upload)}, nil
}

// findUpload returns an upload that the client sees.
func (s *server) findUpload(x *exchange, id string) (filestore.Upload, error) {
	upload, err := s.Files.GetUpload(id)
	if errors.Is(err, filestore.ErrNotFound) || err == nil && !x.sees(upload.Owner) {
		return filestore.Upload{}, noSuchUpload(id)
	}

	return upload, err
}

// addPart stores a part of an upload.
func (s *server) addPart(ctx context.Context, in *uploadInput) (*partOutput, error) {
	x := exchangeOf(ctx)

	part, err := s.receivePart(ctx, x, in.ID)
	if err != nil {
		drainBody(x)
		return nil, err
	}

	return &partOutput{toPartObject(part)}, nil
}

// receivePart stores the part in a form.
func (s *server) receivePart(ctx context.Context, x *exchange, id string) (filestore.Part, error) {
	if _, err := s.findUpload(x, id); err != nil {
		return filestore.Part{}, err
	}

	form, err := openForm(x.request, "data")
	if err != nil {
		return filestore.Part{}, err
	}

	data, err := form.nextFile()
	if err != nil {
		return filestore.Part{}, err
	}

	part, err := s.Files.AddPart(ctx, id, &lastFile{form, bodyReader{data}})
	if errors.Is(err, filestore.ErrNotFound) {
		return filestore.Part{}, noSuchUpload(id)
	}

	return part, err
}

// lastFile reads the file of a form. It ends with an error if the rest of the form is wrong, so that
// the file is not stored.
type lastFile struct {
	form *form
	data bodyReader
}

// Read implements io.Reader.
func (f *lastFile) Read(p []byte) (int, error) {
	n, err := f.data.Read(p)
	if errors.Is(err, io.EOF) {
		if wrong := f.form.finish(); wrong != nil {
			err = wrong
		}
	}

	return n, err
}

// completeUpload makes the file of an upload.
func (s *server) completeUpload(ctx context.Context, in *uploadInput) (*uploadOutput, error) {
	x := exchangeOf(ctx)

	if _, err := s.findUpload(x, in.ID); err != nil {
		return nil, err
	}

	var body completeUploadBody
	err := newBodyDecoder(x.request.Body).readMembers(map[string]any{
		"part_ids": &body.PartIDs,
		"md5":      &body.MD5,
	}, nil)
	switch {
	case err != nil:
		drainBody(x)
		return nil, err
	case len(body.PartIDs) == 0:
		return nil, refuse("part_ids",
			"The member part_ids is missing or empty: give the ids of the parts in the order of the file.")
	}

	upload, err := s.Files.CompleteUpload(ctx, in.ID, body.PartIDs, body.MD5)
	if errors.Is(err, filestore.ErrNotFound) {
		return nil, noSuchUpload(in.ID)
	}
	if err != nil {
		return nil, err
	}

	return &uploadOutput{toUploadObject(upload)}, nil
}

// cancelUpload ends an upload without a file.
func (s *server) cancelUpload(ctx context.Context, in *uploadInput) (*uploadOutput, error) {
	if _, err := s.findUpload(exchangeOf(ctx), in.ID); err != nil {
		return nil, err
	}

	upload, err := s.Files.CancelUpload(in.ID)
	if errors.Is(err, filestore.ErrNotFound) {
		return nil, noSuchUpload(in.ID)
	}
	if err != nil {
		return nil, err
	}

	return &uploadOutput{toUploadObject(upload)}, nil
}
