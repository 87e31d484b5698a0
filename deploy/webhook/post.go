package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/promptmill/promptmill/proto"
)

const (
	// answerTime is the longest time of an attempt at a URL.
	answerTime = 15 * time.Second
	// maxAnswer is how much of an answer is read, in bytes.
	maxAnswer = 1 << 10
	// atOnce is the most attempts at a URL at once.
	atOnce = 4
)

// NewClient returns a client for [NewURLEndpoint]. It follows no redirects: an event goes to
// the address that the user gave, or nowhere.
func NewClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			MaxIdleConnsPerHost:    atOnce,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// NewURLEndpoint returns the endpoint of a URL. agent is the User-Agent of its requests.
func NewURLEndpoint(u *url.URL, signer *Signer, client *http.Client, agent string) Endpoint {
	return Endpoint{
		ID:   HashAddress(u.String()),
		Name: NameOf(u),
		Send: func(ctx context.Context, e Event) Answer {
			return post(ctx, client, u, signer, agent, e)
		},
		Timeout: answerTime,
		AtOnce:  atOnce,
	}
}

// post sends an event to a URL.
func post(ctx context.Context, client *http.Client, u *url.URL, signer *Signer, agent string, e Event) Answer {
	body := e.Body()
	headers, err := signer.sign(e.ID, time.Now(), body)
	if err != nil {
		return Answer{Text: err.Error()}
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return Answer{Text: err.Error()}
	}

	for name, value := range headers {
		req.Header.Set(name, value)
	}

	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", agent)

	resp, err := client.Do(req)
	if err != nil {
		return Answer{Text: describeError(err)}
	}
	defer resp.Body.Close()

	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // the status has come, which says enough

	return readAnswer(resp, text)
}

// readAnswer returns the answer of a response with a text.
func readAnswer(resp *http.Response, text []byte) Answer {
	a := Answer{
		Status:     resp.StatusCode,
		Text:       strings.TrimSpace(fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))),
		RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
	switch {
	case resp.StatusCode/100 == 2:
		a.Delivered = true
		return a
	case resp.StatusCode/100 == 3:
		a.Text += describeRedirect(resp) +
			", and redirects are not followed: give --webhook the address that it leads to"
		return a
	case resp.StatusCode == http.StatusGone:
		a.Final = true
		a.Text += ": the endpoint does not want the event"
		return a
	}

	if line := firstLine(text); line != "" {
		a.Text += ": " + line
	}

	return a
}

// describeRedirect says where a redirect leads, without secrets.
func describeRedirect(resp *http.Response) string {
	to, err := resp.Location()
	if err != nil {
		return ""
	}
	to.User = nil
	return " to " + NameOf(to)
}

// firstLine returns the beginning of an answer for people.
func firstLine(text []byte) string {
	const most = 120
	line, _, _ := strings.Cut(strings.TrimSpace(strings.ToValidUTF8(string(text), "")), "\n")
	line = proto.Printable(strings.TrimSpace(line))
	if runes := []rune(line); len(runes) > most {
		line = string(runes[:most]) + "..."
	}

	return line
}

// parseRetryAfter reads the header Retry-After: seconds, or a date. It returns 0 for other texts.
func parseRetryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(0, seconds), int(maxRetryAfter/time.Second))) * time.Second
	}

	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}

	return min(max(0, at.Sub(now)), maxRetryAfter)
}

// describeError says in plain words why a request has no answer.
func describeError(err error) string {
	unknown, _ := errors.AsType[*net.DNSError](err)
	_, hasAuthority := errors.AsType[x509.UnknownAuthorityError](err)
	name, hasName := errors.AsType[x509.HostnameError](err)
	invalid, hasInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, hasNotTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Sprintf("no answer within %s", answerTime)
	case errors.Is(err, context.Canceled):
		return "the attempt was broken off"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case unknown != nil && unknown.IsNotFound:
		return "no address has the name " + unknown.Name
	case unknown != nil:
		return "the address of " + unknown.Name + " cannot be looked up"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "no route to it"
	case hasAuthority:
		return "the authority of its certificate is not known here"
	case hasName:
		return "its certificate is not for " + name.Host
	case hasInvalid && invalid.Reason == x509.Expired:
		return "its certificate has expired, or is not valid yet"
	case hasInvalid:
		return "its certificate cannot be used: " + strings.TrimPrefix(invalid.Error(), "x509: ")
	case hasNotTLS, strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "it does not use TLS: give --webhook its address with http://"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE):
		return "it closed the connection without an answer"
	}

	if cause, ok := errors.AsType[*url.Error](err); ok {
		err = cause.Err // without the address
	}

	return "no HTTP answer: " + firstLine([]byte(strings.TrimPrefix(err.Error(), "net/http: ")))
}
