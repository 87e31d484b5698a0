package modelserver

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// ErrCoding is returned for an answer in a content coding that cannot be decoded.
var ErrCoding = errors.New("the answer cannot be unpacked")

// decodeBody decodes the content codings of an answer (RFC 9110, 8.4). The requests ask for
// none, and some proxies use one all the same. The body of an error response that cannot be
// decoded is replaced by that error: the status is worth more than its body.
func (a *Answer) decodeBody(most int64) {
	coded := a.Header["Content-Encoding"]
	if a.Err != nil || len(coded) == 0 {
		return
	}

	codings := strings.Split(strings.Join(coded, ","), ",")
	for i := len(codings) - 1; i >= 0 && a.Err == nil && len(a.Body) > 0; i-- {
		a.Body, a.Err = decodeCoding(strings.ToLower(strings.TrimSpace(codings[i])), a.Body, most)
	}

	if a.Err != nil && a.Status >= 300 {
		a.Body, a.Err = []byte(a.Err.Error()), nil
	}
}

// decodeAtOnce is the number of bytes that are decoded before the whole size is known, so that
// a body that was packed very tight takes no memory.
const decodeAtOnce = 4 << 20

// decodeCoding decodes one coding of a body, to at most that many bytes.
func decodeCoding(coding string, body []byte, most int64) ([]byte, error) {
	if coding == "" || coding == "identity" {
		return body, nil
	}

	r, err := newDecoder(coding, body)
	if err != nil {
		return nil, err
	}
	defer r.Close()

	text, err := io.ReadAll(io.LimitReader(r, min(most, decodeAtOnce)))
	if err != nil {
		return nil, fmt.Errorf("%w: it should be %s: %w", ErrCoding, coding, err)
	}

	rest, err := io.Copy(io.Discard, io.LimitReader(r, most+1-int64(len(text))))
	size := int64(len(text)) + rest
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: it should be %s: %w", ErrCoding, coding, err)
	case size > most:
		return nil, fmt.Errorf("%w: longer than %d bytes when unpacked", ErrTooLong, most)
	case rest == 0:
		return text, nil
	}

	again, err := newDecoder(coding, body)
	if err != nil {
		return nil, err
	}
	defer again.Close()

	text = make([]byte, size)
	if _, err := io.ReadFull(again, text); err != nil {
		return nil, fmt.Errorf("%w: it should be %s: %w", ErrCoding, coding, err)
	}

	return text, nil
}

// newDecoder returns a reader of the decoded text of a body in a coding.
func newDecoder(coding string, body []byte) (r io.ReadCloser, err error) {
	switch coding {
	case "gzip", "x-gzip":
		r, err = gzip.NewReader(bytes.NewReader(body))
	case "deflate":
		r, err = zlib.NewReader(bytes.NewReader(body))
	case "zstd":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(
			bytes.NewReader(body), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20),
		); err == nil {
			r = z.IOReadCloser()
		}
	default:
		return nil, fmt.Errorf("%w: it has the content coding %q, which was not asked for", ErrCoding, coding)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: it should be %s: %w", ErrCoding, coding, err)
	}

	return r, nil
}
