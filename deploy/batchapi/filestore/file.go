package filestore

import (
	"errors"
	"time"
)

// The purposes of files.
const (
	PurposeBatch       = "batch"
	PurposeBatchOutput = "batch_output"
)

var (
	// ErrNotFound is returned for a file or an upload that is not there: its id is unknown, it has
	// expired, or it was deleted.
	ErrNotFound = errors.New("no such file")
	// ErrUploadEnded is returned for an upload that is completed, cancelled or expired.
	ErrUploadEnded = errors.New("the upload has ended")
)

// File describes a file.
type File struct {
	// ID is file- and 24 letters and digits.
	ID string `json:"id"`
	// Owner is the id of the API key that made the file; empty if none was needed.
	Owner string `json:"owner,omitempty"`
	// Filename is the name that the client gave.
	Filename string `json:"filename"`
	// Purpose is the purpose that the client gave, such as [PurposeBatch].
	Purpose string `json:"purpose"`
	// Bytes is the size of the file.
	Bytes int64 `json:"bytes"`
	// SHA256 is the hash of the file's bytes, in hexadecimal digits.
	SHA256    string    `json:"sha256,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// ExpiresAt is the time at which the file is removed. Zero: never.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// ExpiresAfter is for [Pending.Commit], which sets ExpiresAt to the creation and this time. 0:
	// ExpiresAt is set already.
	ExpiresAfter time.Duration `json:"-"`
	// IdempotencyKey is the client's name for the request that made the file; empty for none.
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	// Inline reports that the file has the requests of the body of a batch. It is removed with the output
	// of the batch.
	Inline bool `json:"inline,omitempty"`
}

// IsTwin reports whether two files have the same owner, bytes (SHA256), name and purpose.
func (f File) IsTwin(g File) bool {
	return f.Owner == g.Owner && f.SHA256 == g.SHA256 && f.Filename == g.Filename && f.Purpose == g.Purpose
}

// The states of uploads, in the words of OpenAI's API.
const (
	UploadPending   = "pending"
	UploadCompleted = "completed"
	UploadCancelled = "cancelled"
	UploadExpired   = "expired"
)

// Upload describes a file that comes in parts.
type Upload struct {
	// ID is upload_ and 24 letters and digits.
	ID string `json:"id"`
	// Owner, Filename and Purpose are copied to the file, see [File].
	Owner    string `json:"owner,omitempty"`
	Filename string `json:"filename"`
	Purpose  string `json:"purpose"`
	MimeType string `json:"mime_type"`
	// Bytes is the size that the file must have.
	Bytes     int64     `json:"bytes"`
	Status    string    `json:"status"`
	CreatedAt time.Time `json:"created_at"`
	// ExpiresAt is the time at which a pending upload is removed.
	ExpiresAt time.Time `json:"expires_at"`
	// FileExpiresAfter is the time after the creation of the file at which the file is removed.
	// 0: never.
	FileExpiresAfter time.Duration `json:"file_expires_after,omitempty"`
	// File is the file of a completed upload.
	File *File `json:"file,omitempty"`
}

// Part describes a part of an upload.
type Part struct {
	// ID is part_ and 24 letters and digits.
	ID        string    `json:"id"`
	UploadID  string    `json:"upload_id"`
	Bytes     int64     `json:"bytes"`
	CreatedAt time.Time `json:"created_at"`
}
