package proto

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrIndexes is returned for a list of request indexes that cannot be read.
var ErrIndexes = errors.New("bad list of request indexes")

// FormatIndexes writes request indexes as comma-separated numbers and ranges, both ends included:
// "0-31,40". The indexes must ascend.
func FormatIndexes(indexes []uint32) string {
	var b []byte

	for i := 0; i < len(indexes); {
		j := i
		for j+1 < len(indexes) && indexes[j+1] == indexes[j]+1 {
			j++
		}

		if len(b) > 0 {
			b = append(b, ',')
		}

		b = strconv.AppendUint(b, uint64(indexes[i]), 10)
		if j > i {
			b = append(b, '-')
			b = strconv.AppendUint(b, uint64(indexes[j]), 10)
		}

		i = j + 1
	}

	return string(b)
}

// ParseIndexes reads the text that [FormatIndexes] writes. It refuses lists that do not ascend,
// and lists of more than limit indexes, since a short text can name four billion of them.
func ParseIndexes(s string, limit int) ([]uint32, error) {
	if s == "" {
		return nil, nil
	}

	var indexes []uint32
	next := uint64(0) // the least index allowed now

	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")

		from, err := strconv.ParseUint(first, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%w: %q", ErrIndexes, part)
		}

		to := from
		if isRange {
			if to, err = strconv.ParseUint(last, 10, 32); err != nil || to <= from {
				return nil, fmt.Errorf("%w: %q", ErrIndexes, part)
			}
		}

		if from < next {
			return nil, fmt.Errorf("%w: %q does not ascend", ErrIndexes, part)
		}

		if to-from >= uint64(limit-len(indexes)) {
			return nil, fmt.Errorf("%w: more than %d", ErrIndexes, limit)
		}

		for index := from; index <= to; index++ {
			indexes = append(indexes, uint32(index))
		}

		next = to + 1
	}

	return indexes, nil
}
