package objectstore

import (
	"context"
	"io"
	"iter"
	"net/http"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// s3Client is the calls of minio-go that a bucket makes. A *minio.Core in a field of [s3Store] would
// put all of its 350 methods into the program, 1.2 MB: s3Store becomes an interface, and as the
// templates of prompts find methods by their names, the linker keeps each method of each type that
// an interface leads to.
type s3Client struct {
	CredContext func() *credentials.CredContext

	StatObject func(ctx context.Context, bucket, key string, opts minio.StatObjectOptions) (minio.ObjectInfo, error)
	GetObject  func(
		ctx context.Context, bucket, key string, opts minio.GetObjectOptions,
	) (io.ReadCloser, minio.ObjectInfo, http.Header, error)
	ListObjectsIter func(ctx context.Context, bucket string, opts minio.ListObjectsOptions) iter.Seq[minio.ObjectInfo]

	PutObject func(
		ctx context.Context, bucket, key string, body io.Reader, size int64, md5, sha256 string,
		opts minio.PutObjectOptions,
	) (minio.UploadInfo, error)
	RemoveObject func(ctx context.Context, bucket, key string, opts minio.RemoveObjectOptions) error

	NewMultipartUpload func(
		ctx context.Context, bucket, key string, opts minio.PutObjectOptions,
	) (id string, err error)
	PutObjectPart func(
		ctx context.Context, bucket, key, id string, number int, body io.Reader, size int64,
		opts minio.PutObjectPartOptions,
	) (minio.ObjectPart, error)
	CompleteMultipartUpload func(
		ctx context.Context, bucket, key, id string, parts []minio.CompletePart, opts minio.PutObjectOptions,
	) (minio.UploadInfo, error)
	AbortMultipartUpload func(ctx context.Context, bucket, key, id string) error
	ListMultipartUploads func(
		ctx context.Context, bucket, prefix, keyMarker, idMarker, delimiter string, most int,
	) (minio.ListMultipartUploadsResult, error)
}

// newS3Client returns a client of the server at a host.
func newS3Client(host string, opts *minio.Options) (s3Client, error) {
	core, err := minio.NewCore(host, opts)
	if err != nil {
		return s3Client{}, err
	}

	return s3Client{
		CredContext:             core.CredContext,
		StatObject:              core.StatObject,
		GetObject:               core.GetObject,
		ListObjectsIter:         core.ListObjectsIter,
		PutObject:               core.PutObject,
		RemoveObject:            core.RemoveObject,
		NewMultipartUpload:      core.NewMultipartUpload,
		PutObjectPart:           core.PutObjectPart,
		CompleteMultipartUpload: core.CompleteMultipartUpload,
		AbortMultipartUpload:    core.AbortMultipartUpload,
		ListMultipartUploads:    core.ListMultipartUploads,
	}, nil
}
