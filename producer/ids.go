package producer

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/promptmill/promptmill/proto"
)

// IDs gives the number and the custom_id of the wanted requests of an input, in
// ascending order. What it gives is valid until the next one.
func IDs(files []string, s proto.Settings, wanted *roaring.Bitmap) iter.Seq2[proto.Request, error] {
	return func(yield func(proto.Request, error) bool) {
		r, err := NewReader(files, s, nil)
		if err != nil {
			yield(proto.Request{}, err)
			return
		}
		defer r.Close()
		for left := wanted.GetCardinality(); left > 0; {
			item, err := r.Next()
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("the input ends after %d requests, %d of those wanted come later", r.Point().Seq, left)
			}
			if err != nil {
				yield(proto.Request{}, err)
				return
			}
			if !wanted.Contains(item.Seq) {
				continue
			}
			left--
			if !yield(proto.Request{Seq: item.Seq, CustomID: item.CustomID}, nil) {
				return
			}
		}
	}
}
