package batchapi

import (
	"fmt"
	"strconv"
	"strings"
)

// byteRange is a part of a file.
type byteRange struct {
	offset, length int64
}

// contentRange returns the header Content-Range of an answer with the part of a file.
func (r byteRange) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", r.offset, r.offset+r.length-1, size)
}

// rangeRequest is the meaning of a header Range.
type rangeRequest int

const (
	// wholeFile: there is no range, or one that is ignored (RFC 9110, 14.2): of another unit, with
	// several parts or not well-formed.
	wholeFile rangeRequest = iota
	partOfFile
	// outsideFile: the range begins behind the end of the file.
	outsideFile
)

// parseRange reads the header Range of a request for a file.
func parseRange(header string, size int64) (byteRange, rangeRequest) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok || !dash {
		return byteRange{}, wholeFile
	}

	begin, end := int64(0), size-1
	switch {
	case first == "": // the last bytes
		length, ok := parseDigits(last)
		switch {
		case !ok:
			return byteRange{}, wholeFile
		case length == 0 || size == 0:
			return byteRange{}, outsideFile
		}
		begin = max(size-length, 0)
	default:
		if begin, ok = parseDigits(first); !ok {
			return byteRange{}, wholeFile
		}

		if last != "" {
			if end, ok = parseDigits(last); !ok || end < begin {
				return byteRange{}, wholeFile
			}
			end = min(end, size-1)
		}
	}

	if begin >= size {
		return byteRange{}, outsideFile
	}

	return byteRange{begin, end - begin + 1}, partOfFile
}

// parseDigits reads a number of digits alone. One that is too large counts as the largest.
func parseDigits(text string) (int64, bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}

	n, _ := strconv.ParseInt(text, 10, 64) // which is the largest if it is too large

	return n, true
}
