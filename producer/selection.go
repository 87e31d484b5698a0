package producer

import (
	"container/heap"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/promptmill/promptmill/proto"
)

// selection chooses the rows that are requests, see [proto.Settings.Limit] and [proto.Settings.Sample].
type selection struct {
	limit int // 0: all
	// sample are the rows of the sample. Nil: all.
	sample *roaring.Bitmap
}

// newSelection returns the selection of an input of some rows.
func newSelection(s proto.Settings, rows int) *selection {
	sel := &selection{limit: s.Limit}
	if s.Sample == 0 || s.Sample >= rows {
		return sel
	}

	var largest hashHeap // of the least hashes
	for row := range rows {
		h := rowHash{hashRow(uint64(row)), uint32(row)}
		switch {
		case len(largest) < s.Sample:
			heap.Push(&largest, h)
		case h.less(largest[0]):
			largest[0] = h
			heap.Fix(&largest, 0)
		}
	}

	sel.sample = roaring.New()
	for _, h := range largest {
		sel.sample.Add(h.row)
	}

	return sel
}

// has reports whether a row, counted from 0 over all files, is a request.
func (s *selection) has(row int) bool {
	return (s.limit == 0 || row < s.limit) && (s.sample == nil || s.sample.Contains(uint32(row)))
}

// hashRow hashes the number of a row (the finalizer of splitmix64), so that a sample is spread over the
// input.
func hashRow(row uint64) uint64 {
	row += 0x9e3779b97f4a7c15
	row = (row ^ row>>30) * 0xbf58476d1ce4e5b9
	row = (row ^ row>>27) * 0x94d049bb133111eb

	return row ^ row>>31
}

// rowHash is a row with its hash.
type rowHash struct {
	hash uint64
	row  uint32
}

// less orders rows by their hashes.
func (h rowHash) less(other rowHash) bool { return h.hash < other.hash }

// hashHeap is a heap with the largest hash first.
type hashHeap []rowHash

func (h hashHeap) Len() int           { return len(h) }
func (h hashHeap) Less(i, j int) bool { return h[j].less(h[i]) }
func (h hashHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *hashHeap) Push(x any) { *h = append(*h, x.(rowHash)) }

// Pop implements heap.Interface.
func (h *hashHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
