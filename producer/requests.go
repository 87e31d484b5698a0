package producer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/promptmill/promptmill/proto"
)

// Requests returns the wanted requests of a run's input, in ascending order and as they are
// published. Each is valid until the next one.
func Requests(
	ctx context.Context, source Source, m proto.Manifest, wanted *roaring.Bitmap,
) iter.Seq2[proto.Request, error] {
	return func(yield func(proto.Request, error) bool) {
		r, err := NewRunReader(ctx, source, m)
		if err != nil {
			yield(proto.Request{}, err)
			return
		}
		defer r.Close()

		for left := wanted.GetCardinality(); left > 0; {
			item, err := r.Next()
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: it ends after %d requests, %d of the wanted requests come later",
					proto.ErrInputChanged, r.Checkpoint().Index, left)
			}
			if err != nil {
				yield(proto.Request{}, err)
				return
			}

			if !wanted.Contains(item.Index) {
				continue
			}

			left--
			if !yield(item.Request, nil) {
				return
			}
		}
	}
}
