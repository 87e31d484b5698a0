package objectstore

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
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
	// Open opens a part of an object and describes the whole object. The answer begins at
	// object.First, which may be before the part. The end of ctx ends the reads.
	Open(ctx context.Context, key string, part part) (io.ReadCloser, object, error)
}

// lister is a store that lists its objects. A web server does not.
type lister interface {
	store

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
	// First is the offset of the first byte of an answer: the offset of the part, or 0 if the
	// server sends the whole object.
	First int64
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

// describeRange adds to an object what an answer to a request for a part shows: the size of the
// object, and the offset of the first byte. contentRange is the header Content-Range of an answer
// that has a part, and empty for an answer that has the whole object, of a length.
func describeRange(found *object, name string, p part, contentRange string, length int64) error {
	if contentRange == "" {
		if length < 0 {
			return exit.Usage("download it first", "%s: the server does not say how large the file is, so that a "+
				"part of it would look like all of it", name)
		}

		found.First, found.Size, found.Sequential = 0, length, p.isRange()

		return nil
	}

	first, size := parseContentRange(contentRange)
	if first != p.Offset || size < 0 {
		return exit.Usage("download it first",
			"%s: the server answers a request for the bytes from %d on with the range %q", name, p.Offset, contentRange)
	}

	found.First, found.Size = first, size

	return nil
}

// noContentRange stands for the header Content-Range of an answer that has a part and does not say
// which.
const noContentRange = "none"

// isRange reports whether the part is not simply the whole object.
func (p part) isRange() bool { return p.Offset > 0 || p.Length >= 0 }
