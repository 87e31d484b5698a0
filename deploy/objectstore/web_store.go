package objectstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
)

// webStore reads files of web servers. The keys are URLs.
type webStore struct {
	client *http.Client
	// token is sent to the host of the URL as a bearer token. Empty: none.
	token string
	// hint is the hint of an answer that forbids the request, and missingHint that of an answer
	// that there is no such file.
	hint, missingHint string
}

// Stat implements store. It asks for the first byte: the answer has the size, and says whether
// the server has ranges. HEAD does not, and a URL that is signed for GET refuses it.
func (s *webStore) Stat(ctx context.Context, key string) (object, error) {
	body, found, err := s.Open(ctx, key, part{Length: 1})
	if err != nil {
		return object{}, err
	}
	body.Close()

	return found, nil
}

// Open implements store.
func (s *webStore) Open(ctx context.Context, key string, p part) (io.ReadCloser, object, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, key, nil)
	if err != nil {
		return nil, object{}, exit.Usage("", "%s is not a URL", Redact(key))
	}

	req.Header.Set("Accept-Encoding", "identity") // a part of a file that is packed on its way is of no use
	if p.isRange() {
		req.Header.Set("Range", formatRange(p))
	}

	if isStrong(p.Version) {
		req.Header.Set("If-Match", p.Version)
	}

	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}

	resp, err := s.client.Do(req)
	if err != nil {
		return nil, object{}, connectionFailure(err)
	}

	found, err := s.describeAnswer(resp, Redact(key), p)
	if err != nil {
		resp.Body.Close()
		return nil, object{}, err
	}

	found.Key = key

	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable { // an empty file
		resp.Body.Close()
		return io.NopCloser(strings.NewReader("")), found, nil
	}

	return resp.Body, found, nil
}

// formatRange returns a part as the header Range has it.
func formatRange(p part) string {
	if p.Length < 0 {
		return fmt.Sprintf("bytes=%d-", p.Offset)
	}
	return fmt.Sprintf("bytes=%d-%d", p.Offset, p.Offset+p.Length-1)
}

// isStrong reports whether a version is a strong ETag, which a server compares itself.
func isStrong(version string) bool { return strings.HasPrefix(version, `"`) }

// describeAnswer describes the file of an answer to a request for a part.
func (s *webStore) describeAnswer(resp *http.Response, name string, p part) (found object, err error) {
	switch resp.StatusCode {
	case http.StatusOK:
		err = describeRange(&found, name, p, "", resp.ContentLength)

	case http.StatusPartialContent:
		err = describeRange(&found, name, p, cmp.Or(resp.Header.Get("Content-Range"), noContentRange), -1)

	case http.StatusRequestedRangeNotSatisfiable:
		_, size := parseContentRange(resp.Header.Get("Content-Range"))
		if size != 0 || p.Offset > 0 {
			err = changedObject(name, "is shorter now")
		}

	default:
		err = s.describeRefusal(resp, name, p)
	}

	if err != nil {
		return object{}, err
	}

	found.ModTime, _ = http.ParseTime(resp.Header.Get("Last-Modified")) // zero: not known
	found.Version = versionOf(resp, found.Size)

	return found, nil
}

// describeRefusal returns the error of an answer that has no file.
func (s *webStore) describeRefusal(resp *http.Response, name string, p part) error {
	if err := statusFailure(resp.StatusCode, resp.Header, ""); err != nil {
		return err
	}

	answer := "the server answers " + describeStatus(resp.StatusCode, "")
	switch resp.StatusCode {
	case http.StatusPreconditionFailed:
		return changedObject(name, "has another ETag now")

	case http.StatusNotFound, http.StatusGone:
		if p.Version != "" {
			return changedObject(name, "is no longer there")
		}

		if strings.ContainsAny(name, "*[") {
			return missingObject(name, "a web server has no list of its files: name each file")
		}
		return missingObject(name, s.missingHint)

	case http.StatusUnauthorized, http.StatusForbidden:
		if resp.Request.Response != nil { // the address behind a redirect has a time limit
			return &temporaryError{
				err:      errors.New(answer),
				attempts: 2,
				final:    forbiddenObject(name, answer, s.hint),
			}
		}
		return forbiddenObject(name, answer, s.hint)
	}

	return exit.Usage("", "%s: %s", name, answer)
}

// parseContentRange parses the header Content-Range: "bytes 0-9/100" or "bytes */100". A number
// is -1 if it is not there. Both are -1 if the range is not within the size.
func parseContentRange(value string) (first, size int64) {
	unit, value, _ := strings.Cut(strings.TrimSpace(value), " ")
	if !strings.EqualFold(unit, "bytes") {
		return -1, -1
	}

	bounds, total, _ := strings.Cut(value, "/")
	from, to, _ := strings.Cut(bounds, "-")

	first, size = parseCount(from), parseCount(total)
	last := parseCount(to)
	if first >= 0 && (last < first || size >= 0 && last >= size) {
		return -1, -1
	}

	return first, size
}

// parseCount parses a number of bytes. It returns -1 for any other text.
func parseCount(text string) int64 {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 63)
	if err != nil {
		return -1
	}
	return int64(n)
}

// linkedPrefix begins a version that a redirect has given. The server behind it has another ETag.
const linkedPrefix = "linked "

// versionOf returns the version of the file of an answer: its strong ETag; else a weak one, the
// time of the last change and the size together; empty if the answer has none of them. Hugging
// Face answers with a redirect to a server of files that has ETags of its own, so the
// redirect's counts.
func versionOf(resp *http.Response, size int64) string {
	for hop := resp.Request.Response; hop != nil; hop = hop.Request.Response {
		if etag := hop.Header.Get("X-Linked-Etag"); etag != "" {
			return linkedPrefix + etag
		}
	}

	etag, modified := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	switch {
	case isStrong(etag):
		return etag
	case etag == "" && modified == "":
		return ""
	}

	return strings.TrimSpace(etag+" "+modified) + fmt.Sprintf(", %d bytes", size)
}

// newTransport returns the transport of all requests. It unpacks nothing on the way, so that
// offsets count the bytes of the file.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true
	t.MaxIdleConnsPerHost = 16
	t.ReadBufferSize = 64 << 10
	t.ResponseHeaderTimeout = readTimeout
	t.IdleConnTimeout = 30 * time.Second

	return t
}
