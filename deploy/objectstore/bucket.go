package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// Object is an object of a [Bucket].
type Object struct {
	// Key is the key of the object.
	Key string
	// Size is its size in bytes; -1: not known.
	Size int64
	// Metadata is the metadata that was given to [Bucket.Upload]. Only [Bucket.Stat] returns it.
	Metadata map[string]string
}

// Bucket writes objects into a bucket of S3 or of Google Cloud Storage. Each call retries what
// may pass. It is safe for concurrent use.
type Bucket struct {
	// URL is the URL of the bucket: s3://NAME.
	URL string

	store   writableStore
	retrier retrier
}

// newObject is an object to write.
type newObject struct {
	key      string
	file     io.ReaderAt
	size     int64
	metadata map[string]string
	// absent asks the store to refuse the object if one has the key. The error wraps
	// proto.ErrInputChanged then.
	absent bool
}

// writableStore is a store that can be written. Except for Upload, each call makes one attempt,
// with the errors of a [store].
type writableStore interface {
	lister

	// Describe describes an object with its metadata.
	Describe(ctx context.Context, key string) (Object, error)
	// Upload writes an object, which appears when it is whole. It retries each part of it.
	Upload(ctx context.Context, f newObject) error
	// Delete deletes an object. It is no error if there is none.
	Delete(ctx context.Context, key string) error
	// AbortUploads discards uploads of other processes that have not ended, of the keys that a
	// function chooses.
	AbortUploads(ctx context.Context, prefix string, chosen func(key string) bool) error
}

// Stat describes an object. The error wraps [fs.ErrNotExist] if there is none.
func (b *Bucket) Stat(ctx context.Context, key string) (o Object, err error) {
	err = b.retrier.retry(ctx, b.name(key), func() (err error) {
		o, err = b.store.Describe(ctx, key)
		return err
	})

	return o, err
}

// List returns the objects whose keys begin with a prefix, in the order of their keys.
func (b *Bucket) List(ctx context.Context, prefix string) (list []Object, err error) {
	for o, err := range b.store.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		list = append(list, Object{Key: o.Key, Size: o.Size})
	}

	return list, nil
}

// Open opens an object for reading, from its beginning.
func (b *Bucket) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	return openRemote(ctx, b.store, key, b.name(key), "", b.retrier, &recentParts{})
}

// Upload writes an object of a size from a file. The object appears under its key when it is
// whole, with the metadata, whose keys are lowercase. The store checks the bytes of each part.
func (b *Bucket) Upload(
	ctx context.Context, key string, file io.ReaderAt, size int64, metadata map[string]string,
) error {
	return b.store.Upload(ctx, newObject{
		key:      key,
		file:     file,
		size:     size,
		metadata: metadata,
	})
}

// Create is Upload for an object that must not be there: the error wraps [fs.ErrExist] if it is.
// A server that cannot check that, or ignores the condition, replaces the object.
func (b *Bucket) Create(
	ctx context.Context, key string, file io.ReaderAt, size int64, metadata map[string]string,
) error {
	err := b.store.Upload(ctx, newObject{
		key:      key,
		file:     file,
		size:     size,
		metadata: metadata,
		absent:   true,
	})
	if !errors.Is(err, proto.ErrInputChanged) {
		return err
	}

	there, err := b.Stat(ctx, key)
	if err != nil {
		return err
	}

	if there.Size == size && maps.Equal(there.Metadata, metadata) { // an attempt whose answer was lost has made it
		return nil
	}

	return &failure{b.name(key) + ": there is such an object already", fs.ErrExist}
}

// Delete deletes an object. It is no error if there is none.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	return b.retrier.retry(ctx, b.name(key), func() error {
		err := b.store.Delete(ctx, key)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// AbortUploads discards the uploads that a dead process has left, of the keys with a prefix
// that a function chooses. Their parts cost money and are not visible.
func (b *Bucket) AbortUploads(ctx context.Context, prefix string, chosen func(key string) bool) error {
	return b.retrier.retry(ctx, b.name(prefix)+"*", func() error { return b.store.AbortUploads(ctx, prefix, chosen) })
}

// name returns the URL of an object.
func (b *Bucket) name(key string) string { return b.URL + "/" + key }

// maxKey is the most bytes of the key of an output. A store allows 1024, and other objects of the output have
// longer endings.
const maxKey = 1024 - 40

// OpenBucket returns the bucket of a URL, and the key in it. Only s3:// and gs:// can be written.
func (c *Client) OpenBucket(ctx context.Context, address string) (*Bucket, string, error) {
	s, at, err := c.find(ctx, address)
	if err != nil {
		return nil, "", err
	}

	writable, ok := s.(writableStore)
	switch {
	case !ok:
		return nil, "", exit.Usage("write it to s3://BUCKET/KEY, to gs://BUCKET/KEY, or to a file",
			"%s cannot be written", Redact(address))
	case at.scheme == schemeS3 && s3utils.CheckValidBucketName(at.bucket) != nil:
		return nil, "", exit.Usage("the name of a bucket has 3 to 63 letters, digits, dots and hyphens",
			"%s: %s cannot be the name of a bucket", address, at.bucket)
	case len(at.key) > maxKey || !utf8.ValidString(at.key) || strings.ContainsFunc(at.key, unicode.IsControl):
		return nil, "", exit.Usage(fmt.Sprintf("a key has at most %d bytes of text in UTF-8, on one line", maxKey),
			"%q cannot be the key of an output", at.key)
	case at.key != strings.TrimPrefix(path.Clean("/"+at.key), "/"):
		return nil, "", exit.Usage(fmt.Sprintf("write %s://%s%s", at.scheme, at.bucket, path.Clean("/"+at.key)),
			"%s: a key of an output has no empty part, and none that is . or ..", address)
	}

	return &Bucket{
		URL:     at.scheme + "://" + at.bucket,
		store:   writable,
		retrier: c.retrier,
	}, at.key, nil
}

// lowerKeys returns metadata with the keys in lower case: servers change the case of headers.
func lowerKeys(metadata map[string]string) map[string]string {
	lower := map[string]string{}
	for name, value := range metadata {
		lower[strings.ToLower(name)] = value
	}

	return lower
}
