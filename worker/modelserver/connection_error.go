package modelserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

// connectionError is an error of an HTTP client in words for people. It wraps that error.
type connectionError struct {
	text string
	err  error
}

func (e *connectionError) Error() string { return e.text }

func (e *connectionError) Unwrap() error { return e.err }

// describeConnectionError puts an error of an HTTP client into words for people. It returns all
// other errors as they are, and nil for nil.
func describeConnectionError(err error) error {
	if text := connectionProblem(err); text != "" {
		return &connectionError{text, err}
	}
	return err
}

// connectionProblem describes why a server gave no answer. It is empty for an error that is not of
// the connection.
func connectionProblem(err error) string {
	unknown, _ := errors.AsType[*net.DNSError](err)
	timeout, _ := errors.AsType[net.Error](err)
	opening, _ := errors.AsType[*net.OpError](err)
	isDial := opening != nil && opening.Op == "dial"
	if text := tlsProblem(err); text != "" {
		return text
	}

	switch {
	case errors.Is(err, context.Canceled):
		return "" // the caller's own decision
	case unknown != nil && unknown.IsNotFound:
		return "no address has the name " + unknown.Name
	case unknown != nil:
		return "the address of " + unknown.Name + " cannot be looked up: the name server does not answer"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: no server listens there"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "there is no route to it from this machine"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "too many open files: this process may not open another connection"
	case isDial && timeout.Timeout():
		return "no connection in time: nothing answers at this address"
	case errors.Is(err, context.DeadlineExceeded), timeout != nil && timeout.Timeout():
		return "no answer in time"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the server reset the connection before the end of its answer"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection before the end of its answer"
	case err != nil && strings.Contains(err.Error(), "malformed HTTP"): // net/http exports no such error
		return "the answer is not HTTP: is it a model server?"
	}

	return ""
}

// tlsProblem describes an error of TLS. It is empty for any other error.
func tlsProblem(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the authority of its certificate is not known here; --model-ca FILE names the certificates to trust"
	}

	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "its certificate is for another name than that of the URL"
	}

	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return "its certificate has expired, is not valid yet, or the clock of this machine is wrong"
		}
		return "its certificate cannot be used: " + strings.TrimPrefix(invalid.Error(), "x509: ")
	}

	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "it does not use TLS: write http:// in place of https://"
	}

	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		return fmt.Sprintf("it ends the TLS connection: %s", strings.TrimPrefix(alert.Err.Error(), "tls: "))
	}

	return ""
}
