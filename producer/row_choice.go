package producer

import (
	"slices"

	"github.com/promptmill/promptmill/proto"
)

// rowChoice chooses the rows that are requests by [proto.Settings.Sample].
type rowChoice struct {
	// all reports that each row is one.
	all bool
	// most is the largest hash of a chosen row.
	most uint64
}

// newRowChoice returns the choice of an input of some rows.
func newRowChoice(s proto.Settings, rows int) rowChoice {
	if s.Sample == 0 || s.Sample >= rows {
		return rowChoice{all: true}
	}

	hashes := make([]uint64, rows)
	for row := range rows {
		hashes[row] = hashOfRow(row + 1)
	}
	slices.Sort(hashes)

	return rowChoice{most: hashes[s.Sample-1]}
}

// has reports whether a row, counted from 1 over all files, is a request.
func (c rowChoice) has(row int) bool { return c.all || hashOfRow(row) <= c.most }

// hashOfRow returns the hash by which a row is chosen: the finalizer of SplitMix64 (Steele, Lea and Flood,
// 2014).
func hashOfRow(row int) uint64 {
	z := uint64(row) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb

	return z ^ z>>31
}
