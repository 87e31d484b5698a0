package objectstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// failure is an error in words for people that is of a kind.
type failure struct {
	text string
	kind error
}

// Error implements error.
func (f *failure) Error() string { return f.text }

// Unwrap returns the kind.
func (f *failure) Unwrap() error { return f.kind }

// missingObject returns the error of an object that is not there.
func missingObject(name, hint string) error {
	return exit.Usage(hint, "%w", &failure{name + ": there is no such object", fs.ErrNotExist})
}

// errNoBucket is the kind of the error of a bucket that is not there.
var errNoBucket = fmt.Errorf("no bucket: %w", fs.ErrNotExist)

// changedObject returns the error of an object that is not the one that was validated.
func changedObject(name, how string) error {
	return &failure{fmt.Sprintf("%v: %s %s", proto.ErrInputChanged, name, how), proto.ErrInputChanged}
}

// forbiddenObject returns the error of an object that this user may not read.
func forbiddenObject(name, answer, hint string) error {
	return exit.Usage(hint, "%w", &failure{name + ": " + answer, fs.ErrPermission})
}

// connectionFailure returns the error of a request that got no answer, or not all of it.
func connectionFailure(err error) error {
	text, final, attempts := describeConnection(err)
	if server := serverOf(err); server != nil && !strings.Contains(text, server.Hostname()) {
		text = server.Host + ": " + text
	}

	if final {
		return exit.Unreachable(&failure{text, err}, "")
	}

	return &temporaryError{
		err:        &failure{text, err},
		attempts:   attempts,
		unanswered: true,
	}
}

// serverOf returns the URL of a request that got no answer. Nil: not known.
func serverOf(err error) *url.URL {
	request, ok := errors.AsType[*url.Error](err)
	if !ok {
		return nil
	}

	u, err := url.Parse(request.URL)
	if err != nil {
		return nil
	}

	return u
}

// unansweredAttempts is the number of attempts to reach a server that does not listen, or has
// no address: a wrong name is reported after a second or two. A store that has answered before is
// waited for as long as one that answers 503.
const unansweredAttempts = 4

// describeConnection puts an error of an HTTP client into words, and reports whether another
// attempt is pointless, or the number of attempts that are worth it.
func describeConnection(err error) (text string, final bool, attempts int) {
	if text := describeTLS(err); text != "" {
		return text, true, 0
	}

	lookup, _ := errors.AsType[*net.DNSError](err)
	timeout, _ := errors.AsType[net.Error](err)
	switch {
	case lookup != nil && lookup.IsNotFound:
		return "no address has the name " + lookup.Name, false, unansweredAttempts
	case lookup != nil:
		return "the address of " + lookup.Name + " cannot be looked up", false, 0
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: no server listens there", false, unansweredAttempts
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "there is no route to it from this machine", false, unansweredAttempts
	case errors.Is(err, errStalled):
		return errStalled.Error(), false, 0
	case errors.Is(err, context.DeadlineExceeded), timeout != nil && timeout.Timeout():
		return "no answer in time", false, 0
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE),
		strings.Contains(err.Error(), "Connection closed by foreign host"): // minio-go has no such error
		return "the connection broke before the end of the answer", false, 0
	case strings.Contains(err.Error(), "stopped after"): // net/http exports no such error
		return "it redirects in a circle", true, 0
	case strings.Contains(err.Error(), "malformed HTTP"):
		return "the answer is not HTTP", true, 0
	}

	return "no answer: " + withoutRequest(err).Error(), false, 0
}

// withoutRequest returns an error without the method and the URL of its request, which may have
// secrets.
func withoutRequest(err error) error {
	if request, ok := errors.AsType[*url.Error](err); ok {
		return request.Err
	}
	return err
}

// describeTLS describes an error of TLS. It is empty for any other error.
func describeTLS(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the authority of its certificate is not known here; SSL_CERT_FILE names a file of certificates to trust"
	}

	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "its certificate is for another name than that of the URL"
	}

	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return "its certificate cannot be used: " + strings.TrimPrefix(invalid.Error(), "x509: ")
	}

	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok ||
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") { // net/http exports no such error
		return "it does not use TLS: write http:// in place of https://"
	}

	return ""
}

// statusFailure returns the error of an answer with a status that may pass, or nil.
func statusFailure(status int, header http.Header, said string) error {
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests,
		status >= 500 && status != http.StatusNotImplemented && status != http.StatusHTTPVersionNotSupported:
		return &temporaryError{
			err:   errors.New("the server answers " + describeStatus(status, said)),
			after: retryAfter(header),
		}
	}

	return nil
}

// describeStatus returns the status of an answer and the server's words for it.
func describeStatus(status int, said string) string {
	text := strconv.Itoa(status)
	if name := http.StatusText(status); name != "" {
		text += " " + name
	}

	if said != "" {
		text += " (" + said + ")"
	}

	return text
}

// retryAfter returns the wait that an answer asks for.
func retryAfter(header http.Header) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 3600)) * time.Second
	}

	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}

	return 0
}
