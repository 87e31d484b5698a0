package batchapi

import (
	"time"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto"
)

// fileObject is a file as a client reads it.
type fileObject struct {
	ID        string `json:"id"`
	Object    string `json:"object" enum:"file"`
	Bytes     int64  `json:"bytes"`
	CreatedAt int64  `json:"created_at" doc:"Unix time in seconds."`
	// ExpiresAt is null for a file that stays until it is deleted.
	ExpiresAt *int64 `json:"expires_at" doc:"Unix time in seconds. Null: the file stays until it is deleted."`
	Filename  string `json:"filename"`
	Purpose   string `json:"purpose" enum:"assistants,batch,fine-tune,vision,user_data,evals,batch_output"`
	Status    string `json:"status" enum:"processed"`
}

// deletedObject is the answer to a deletion.
type deletedObject struct {
	ID      string `json:"id"`
	Object  string `json:"object" enum:"file"`
	Deleted bool   `json:"deleted"`
}

// listObject is a page of a list.
type listObject[T any] struct {
	Object  string  `json:"object" enum:"list"`
	Data    []T     `json:"data" nullable:"false"`
	FirstID *string `json:"first_id" doc:"The id of the first object of this page; null if it is empty."`
	LastID  *string `json:"last_id" doc:"The id of the last object of this page: after of the next one."`
	HasMore bool    `json:"has_more"`
}

// uploadObject is an upload as a client reads it.
type uploadObject struct {
	ID        string      `json:"id"`
	Object    string      `json:"object" enum:"upload"`
	Bytes     int64       `json:"bytes"`
	CreatedAt int64       `json:"created_at" doc:"Unix time in seconds."`
	ExpiresAt int64       `json:"expires_at" doc:"Unix time in seconds."`
	Filename  string      `json:"filename"`
	Purpose   string      `json:"purpose" enum:"assistants,batch,fine-tune,vision,user_data,evals"`
	Status    string      `json:"status" enum:"pending,completed,cancelled,expired"`
	File      *fileObject `json:"file,omitempty" doc:"The file of a completed upload."`
}

// partObject is a part of an upload as a client reads it.
type partObject struct {
	ID        string `json:"id"`
	Object    string `json:"object" enum:"upload.part"`
	CreatedAt int64  `json:"created_at" doc:"Unix time in seconds."`
	UploadID  string `json:"upload_id"`
}

// modelObject is a model as a client reads it.
type modelObject struct {
	ID      string `json:"id"`
	Object  string `json:"object" enum:"model"`
	Created int64  `json:"created" doc:"Unix time in seconds at which the first of its workers started."`
	OwnedBy string `json:"owned_by" doc:"The kind of the model server, such as vllm."`
}

// modelList is the list of models, which has no pages.
type modelList struct {
	Object string        `json:"object" enum:"list"`
	Data   []modelObject `json:"data" nullable:"false"`
}

// batchStatus is the state of a batch as a client reads it.
type batchStatus string

// batchObject is a batch as a client reads it. What a batch does not have yet is null, as in OpenAI's
// answers.
type batchObject struct {
	ID               string       `json:"id"`
	Object           string       `json:"object" enum:"batch"`
	Endpoint         string       `json:"endpoint"`
	Model            *string      `json:"model,omitempty" doc:"The model of all requests, if they have one."`
	Errors           *batchErrors `json:"errors"`
	InputFileID      string       `json:"input_file_id"`
	CompletionWindow string       `json:"completion_window"`
	Status           batchStatus  `json:"status"`
	OutputFileID     *string      `json:"output_file_id" doc:"Null until the first answers are stored."`
	ErrorFileID      *string      `json:"error_file_id" doc:"Null while no request has failed."`

	CreatedAt    int64  `json:"created_at" doc:"Unix time in seconds, as all times."`
	InProgressAt *int64 `json:"in_progress_at"`
	ExpiresAt    *int64 `json:"expires_at"`
	FinalizingAt *int64 `json:"finalizing_at"`
	CompletedAt  *int64 `json:"completed_at"`
	FailedAt     *int64 `json:"failed_at"`
	ExpiredAt    *int64 `json:"expired_at"`
	CancellingAt *int64 `json:"cancelling_at"`
	CancelledAt  *int64 `json:"cancelled_at"`

	RequestCounts requestCounts     `json:"request_counts"`
	Usage         *batchUsage       `json:"usage,omitempty" doc:"The tokens of the answers that are stored."`
	Metadata      map[string]string `json:"metadata" nullable:"true"`
	Problem       *string           `json:"problem" doc:"The reason why the batch does not work now, if there is one."`
}

// batchErrors are the faults of a batch's input.
type batchErrors struct {
	Object string       `json:"object" enum:"list"`
	Data   []batchError `json:"data" nullable:"false"`
}

// batchError is a fault of a batch's input.
type batchError struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Param   *string `json:"param"`
	Line    *int    `json:"line" doc:"The number of the line, from 1; null: the fault is of no line."`
}

// requestCounts counts the requests of a batch.
type requestCounts struct {
	Total     int `json:"total"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
}

// batchUsage counts the tokens of a batch.
type batchUsage struct {
	InputTokens         int64               `json:"input_tokens"`
	InputTokensDetails  inputTokensDetails  `json:"input_tokens_details"`
	OutputTokens        int64               `json:"output_tokens"`
	OutputTokensDetails outputTokensDetails `json:"output_tokens_details"`
	TotalTokens         int64               `json:"total_tokens"`
}

type inputTokensDetails struct {
	CachedTokens int64 `json:"cached_tokens"`
}

type outputTokensDetails struct {
	ReasoningTokens int64 `json:"reasoning_tokens"`
}

// toFileObject returns a file as a client reads it.
func toFileObject(f filestore.File) fileObject {
	return fileObject{
		ID:        f.ID,
		Object:    "file",
		Bytes:     f.Bytes,
		CreatedAt: f.CreatedAt.Unix(),
		ExpiresAt: toUnix(f.ExpiresAt),
		Filename:  f.Filename,
		Purpose:   f.Purpose,
		Status:    "processed",
	}
}

// toUploadObject returns an upload as a client reads it.
func toUploadObject(u filestore.Upload) uploadObject {
	object := uploadObject{
		ID:        u.ID,
		Object:    "upload",
		Bytes:     u.Bytes,
		CreatedAt: u.CreatedAt.Unix(),
		ExpiresAt: u.ExpiresAt.Unix(),
		Filename:  u.Filename,
		Purpose:   u.Purpose,
		Status:    u.Status,
	}
	if u.File != nil {
		object.File = new(toFileObject(*u.File))
	}

	return object
}

// toPartObject returns a part as a client reads it.
func toPartObject(p filestore.Part) partObject {
	return partObject{
		ID:        p.ID,
		Object:    "upload.part",
		CreatedAt: p.CreatedAt.Unix(),
		UploadID:  p.UploadID,
	}
}

// toBatchObject returns a batch as a client reads it.
func toBatchObject(b batch.Batch) batchObject {
	object := batchObject{
		ID:               b.ID,
		Object:           "batch",
		Endpoint:         b.Endpoint,
		Errors:           toBatchErrors(b.Errors),
		InputFileID:      b.InputFileID,
		CompletionWindow: b.CompletionWindow,
		Status:           batchStatus(b.State),
		OutputFileID:     toNullable(b.OutputFileID),
		ErrorFileID:      toNullable(b.ErrorFileID),
		CreatedAt:        b.CreatedAt.Unix(),
		InProgressAt:     toUnix(b.InProgressAt),
		ExpiresAt:        toUnix(b.ExpiresAt),
		FinalizingAt:     toUnix(b.FinalizingAt),
		CompletedAt:      toUnix(b.CompletedAt),
		FailedAt:         toUnix(b.FailedAt),
		ExpiredAt:        toUnix(b.ExpiredAt),
		CancellingAt:     toUnix(b.CancellingAt),
		CancelledAt:      toUnix(b.CancelledAt),
		RequestCounts:    requestCounts{Total: b.Total, Completed: b.Completed, Failed: b.Failed},
		Metadata:         b.Metadata,
		Problem:          toNullable(b.Problem),
	}

	if b.State == proto.StatePaused { // OpenAI's API has no such state, and SDKs stop at an unknown one
		object.Status = batchStatus(proto.StateInProgress)
	}

	if len(b.Models) == 1 {
		object.Model = &b.Models[0]
	}

	if u := b.Usage; u != nil {
		object.Usage = &batchUsage{
			InputTokens:         u.Input,
			InputTokensDetails:  inputTokensDetails{CachedTokens: u.CachedInput},
			OutputTokens:        u.Output,
			OutputTokensDetails: outputTokensDetails{ReasoningTokens: u.ReasoningOutput},
			TotalTokens:         u.Input + u.Output,
		}
	}

	return object
}

// toBatchErrors returns the faults of an input as a client reads them, nil for none.
func toBatchErrors(faults []batch.InputError) *batchErrors {
	if len(faults) == 0 {
		return nil
	}

	list := &batchErrors{Object: "list"}
	for _, f := range faults {
		e := batchError{Code: f.Code, Message: f.Message, Param: toNullable(f.Param)}
		if f.Line > 0 {
			e.Line = &f.Line
		}
		list.Data = append(list.Data, e)
	}

	return list
}

// toUnix returns a time in seconds, nil for none.
func toUnix(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	return new(t.Unix())
}

// toNullable returns a text, nil for an empty one.
func toNullable(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
