package objectstore

import (
	"slices"
	"sync"
)

// recentBytes is the most memory of the parts that a client keeps, in bytes.
const recentBytes = 8 << 20

// recentParts keeps the parts of objects that were read last. A file is opened several times
// within a moment: for its format, its compression, its columns and its rows. And the small
// column chunks of a Parquet file lie beside each other. Parts of an object without a version
// are not kept, because nothing shows that they are still right.
type recentParts struct {
	// mu guards the fields below.
	mu sync.Mutex
	// parts are the parts, the one that was used last at the end.
	parts []recentPart
	// size is the number of their bytes.
	size int
}

// recentPart is a part of an object.
type recentPart struct {
	// name is the URL of the object.
	name string
	// object describes the whole object.
	object object
	// offset is the offset of the first byte.
	offset int64
	data   []byte
}

// find returns the bytes of an object from an offset on; nil if there are none.
func (r *recentParts) find(name, version string, offset int64) ([]byte, object) {
	if version == "" {
		return nil, object{}
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	for i, p := range slices.Backward(r.parts) {
		within := offset - p.offset
		if p.name == name && p.object.Version == version && within >= 0 && within < int64(len(p.data)) {
			r.parts = append(slices.Delete(r.parts, i, i+1), p)
			return p.data[within:], p.object
		}
	}

	return nil, object{}
}

// add keeps a part, which must not change any more, and drops those that were not used for longest.
func (r *recentParts) add(p recentPart) {
	if p.object.Version == "" || len(p.data) == 0 {
		return
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	r.parts = append(r.parts, p)
	for r.size += len(p.data); r.size > recentBytes; {
		r.size -= len(r.parts[0].data)
		r.parts = slices.Delete(r.parts, 0, 1)
	}
}
