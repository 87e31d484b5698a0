package busconn

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// A failure is described in words of its own, with an instruction.
func TestDescribeFailure(t *testing.T) {
	t.Parallel()

	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	tls := func(err error) error { return fmt.Errorf("%w: %w", nats.ErrTLS, err) }
	cert := &x509.Certificate{
		DNSNames:  []string{"bus.example"},
		Issuer:    pkix.Name{CommonName: "home"},
		NotBefore: time.Date(2100, 1, 2, 3, 4, 5, 0, time.UTC),
		NotAfter:  time.Date(2101, 1, 1, 0, 0, 0, 0, time.UTC),
	}

	for _, tt := range []struct {
		err  error
		want string
	}{
		{dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), "connection refused"},
		{dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), "no route to it"},
		{dial(os.NewSyscallError("connect", syscall.ENETUNREACH)), "no route to it"},
		{dial(os.ErrDeadlineExceeded), "no answer within 5s"},
		{dial(&net.DNSError{Name: "head", IsNotFound: true}), "no address has the name head"},
		{dial(&net.DNSError{Name: "head", IsTimeout: true}), "the address of head cannot be looked up"},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, "it takes the connection and says nothing for 5s"},
		{context.DeadlineExceeded, "it takes the connection and says nothing for 5s"},
		{io.EOF, "it closes the connection without a word"},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, "it closes the connection without a word"},
		{nats.ErrNoInfoReceived, "it is not a NATS server"},
		{nats.ErrSecureConnWanted, "it does not use TLS"},
		{nats.ErrMaxConnectionsExceeded, "it has as many connections as it takes"},
		{tls(x509.UnknownAuthorityError{Cert: cert}), "the authority of its certificate is not known here (home)"},
		{tls(x509.UnknownAuthorityError{}), "the authority of its certificate is not known here"},
		{tls(x509.HostnameError{Certificate: cert, Host: "head"}), "its certificate is for bus.example, and not for head"},
		{tls(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "head"}),
			"its certificate is for no server, and not for head"},
		{tls(x509.CertificateInvalidError{Cert: cert, Reason: x509.Expired}),
			"its certificate is not valid before 2100-01-02 03:04:05 UTC"},
		{tls(x509.CertificateInvalidError{Cert: cert, Reason: x509.NotAuthorizedToSign}),
			"its certificate cannot be used: certificate is not authorized to sign other certificates"},
		{errors.New("nats: something new"), "something new"},
	} {
		f := describeFailure(tt.err)
		if f.what != tt.want || f.hint == "" {
			t.Errorf("%v: %q, want %q, with the hint %q", tt.err, f.what, tt.want, f.hint)
		}

		for _, word := range []string{"nats:", "x509:", "tls:", "context"} {
			if strings.Contains(f.what, word) {
				t.Errorf("%v: %q has the word %s", tt.err, f.what, word)
			}
		}
	}
}

// Equal answers of addresses are named once.
func TestJoinAnswers(t *testing.T) {
	t.Parallel()

	got := joinAnswers([]string{"a:1", "b:1", "c:1"}, []string{"refused", "refused", "silent"})
	if want := "a:1, b:1: refused; c:1: silent"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
