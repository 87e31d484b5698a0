package notice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	// maxBody is the longest body of an answer, in bytes.
	maxBody = 64 << 10
	// answerTime is the time for an answer that need not wait for a change.
	answerTime = 5 * time.Second
	// dialTime is the time for a connection.
	dialTime = 2 * time.Second
)

// linkLocal is the address of the metadata services of all three clouds. Each has it for boxes with IPv4.
const linkLocal = "http://169.254.169.254"

// client asks a server that may be hostile, slow or absent. It follows no redirects.
type client struct {
	http *http.Client
	// bases are the addresses of the server, without a path: one for each version of IP.
	bases []string
	// answers is the index of the address that answered last, which is asked first.
	answers atomic.Int32
}

// newClient returns a client of a server at some addresses. proxy is nil for servers that no proxy can reach.
func newClient(proxy func(*http.Request) (*url.URL, error), bases ...string) *client {
	dialer := net.Dialer{Timeout: dialTime}

	return &client{
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:                  proxy,
				DialContext:            dialer.DialContext,
				DisableCompression:     true,
				MaxResponseHeaderBytes: maxBody,
				TLSHandshakeTimeout:    answerTime,
				IdleConnTimeout:        time.Minute,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		bases: bases,
	}
}

// close closes the connections.
func (c *client) close() { c.http.CloseIdleConnections() }

// answer is the answer of a server.
type answer struct {
	status int
	header http.Header
	body   string
	sent   time.Time // by the clock of the server, if it says it
}

// request sends a request without a body and reads the answer, which may take patience. A server with several addresses
// is asked at the next if no connection comes about.
func (c *client) request(
	ctx context.Context, method, path string, header http.Header, patience time.Duration,
) (a answer, err error) {
	first := int(c.answers.Load())
	for i := range c.bases {
		at := (first + i) % len(c.bases)
		a, err = c.askAt(ctx, method, c.bases[at]+path, header, patience)
		if err == nil {
			c.answers.Store(int32(at))
			return a, nil
		}

		if dial := (*net.OpError)(nil); !errors.As(err, &dial) || dial.Op != "dial" {
			return a, err
		}
	}

	return a, err
}

// askAt is ask at one URL.
func (c *client) askAt(
	ctx context.Context, method, address string, header http.Header, patience time.Duration,
) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return answer{}, err
	}

	for name, values := range header {
		req.Header[name] = values
	}

	req.Header.Set("User-Agent", "promptmill")

	shown := showURL(req.URL)
	resp, err := c.http.Do(req)
	if err != nil {
		if fault, ok := errors.AsType[*url.Error](err); ok {
			err = fault.Err // without the URL
		}
		return answer{}, fmt.Errorf("%s: %w", shown, err)
	}
	defer resp.Body.Close()

	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return answer{}, fmt.Errorf("%s: %w", shown, err)
	case len(body) > maxBody:
		return answer{}, fmt.Errorf("%s: the answer is longer than %d bytes", shown, maxBody)
	}

	sent, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		sent = time.Now()
	}

	return answer{
		status: resp.StatusCode,
		header: resp.Header,
		body:   string(body),
		sent:   sent,
	}, nil
}

// describeStatus returns the error for an answer that is not one of those expected.
func (a answer) describeStatus(path string) error {
	return fmt.Errorf("%s: the answer is %d %s", path, a.status, http.StatusText(a.status))
}
