package objectstore

import (
	"context"
	"io"
	"iter"
	"time"
)

// store is a bucket, a web server or a data set: a place of objects that have keys.
//
// Stat and Open make one attempt. An error that may pass is a [temporaryError]; an error that
// wraps [io/fs.ErrNotExist] says that there is no such object, and one that wraps
// proto.ErrInputChanged that it has another version. All other errors are final, and say in a
// sentence what to do.
type store interface {
	// Stat describes an object.
	Stat(ctx context.Context, key string) (object, error)
	// Open opens a part of an object and describes the whole object. The end of ctx ends the reads.
	Open(ctx context.Context, key string, part part) (io.ReadCloser, object, error)
	// List yields the objects whose keys begin with a prefix, in the order of their keys. It
	// retries what may pass. The first error ends it.
	List(ctx context.Context, prefix string) iter.Seq2[object, error]
}

// object describes an object of a store.
type object struct {
	// Key is the key of the object in its store.
	Key string
	// Size is its size in bytes; -1: not known.
	Size int64
	// Version differs whenever the contents differ: an ETag, a generation, or the time of the last
	// change. Empty: not known.
	Version string
	// ModTime is the time of the last change. Zero: not known.
	ModTime time.Time
	// Sequential reports that the object can only be read from its beginning.
	Sequential bool
}

// part is a part of an object.
type part struct {
	// Offset is the offset of the first byte.
	Offset int64
	// Length is the number of bytes; -1: all to the end.
	Length int64
	// Version is the version that the object must have. Empty: any.
	Version string
}
