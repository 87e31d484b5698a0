package http1

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// ErrTooLong is returned for an answer that is longer than the bound.
var ErrTooLong = errors.New("answer is too long")

// Response is an HTTP answer that was read to its end, or to the error that comes with it.
type Response struct {
	Status int
	Header http.Header
	Body   []byte

	// Doubted is the answer that came before, to the same request; nil: there was none.
	Doubted *DoubtedAnswer
}

// DoubtedAnswer is an answer that may have been that of another request. The request was sent again, so
// the server has worked on it twice.
type DoubtedAnswer struct {
	// Took is the time from the request to the end of the answer.
	Took time.Duration
	// Resent is the time at which the request was sent again.
	Resent time.Time
	// Body is the body of the answer.
	Body []byte
}

// ReadBody reads an answer's body, of at most limit bytes, into a buffer of its size if the
// header has that.
func ReadBody(res *http.Response, limit int64) ([]byte, error) {
	if res.ContentLength > limit {
		return nil, fmt.Errorf("%w: of %d bytes, %d are read at most", ErrTooLong, res.ContentLength, limit)
	}

	if res.ContentLength >= 0 {
		body := make([]byte, res.ContentLength)
		_, err := io.ReadFull(res.Body, body)
		return body, err
	}

	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("%w: longer than %d bytes", ErrTooLong, limit)
	}

	return body, err
}
