package busconn

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// failure describes why no bus answers at an address.
type failure struct {
	// what describes the answer, such as "connection refused".
	what string
	// hint is an instruction.
	hint string
	// final is set if the answer does not change while a command waits.
	final bool
}

// describeFailure describes the error of a connection.
func describeFailure(err error) failure {
	unknown, _ := errors.AsType[*net.DNSError](err)
	timeout, _ := errors.AsType[net.Error](err)
	opening, _ := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, errOtherCertificate):
		return failure{what: "another certificate", hint: joinHint}
	case errors.Is(err, syscall.ECONNREFUSED):
		return failure{what: "connection refused", hint: startHint}
	case unknown != nil && unknown.IsNotFound:
		return failure{
			what: "no address has the name " + unknown.Name,
			hint: "correct the name in the URL, or give the address of the server in its place",
		}
	case unknown != nil:
		return failure{
			what: "the address of " + unknown.Name + " cannot be looked up",
			hint: "make the name server of this machine reachable, or give an address in place of the name",
		}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return failure{what: "no route to it", hint: "connect this machine to that network or VPN, or correct the URL"}
	case opening != nil && opening.Op == "dial" && timeout.Timeout():
		return failure{
			what: fmt.Sprintf("no answer within %s", connectTimeout),
			hint: "let this port through the firewall of that machine, or correct the URL",
		}
	}

	if f, ok := describeTLSFailure(err); ok {
		return f
	}

	switch {
	case errors.Is(err, nats.ErrNoInfoReceived):
		return failure{what: "it is not a NATS server", hint: "give the port of the NATS server, 4222 by default"}
	case timeout != nil && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return failure{
			what: fmt.Sprintf("it takes the connection and says nothing for %s", connectTimeout),
			hint: "give the port of the NATS server, 4222 by default; if it is this one, look at its log",
		}
	case isClosedByServer(err):
		return failure{
			what: "it closes the connection without a word",
			hint: closedHint,
		}
	case errors.Is(err, nats.ErrMaxConnectionsExceeded), errors.Is(err, nats.ErrMaxAccountConnectionsExceeded):
		return failure{what: "it has as many connections as it takes", hint: "raise max_connections in its configuration"}
	case errors.Is(err, nats.ErrNoServers):
		return failure{what: "no answer", hint: startHint}
	}

	return failure{
		what: strings.TrimPrefix(err.Error(), "nats: "),
		hint: startHint,
	}
}

// describeTLSFailure describes an error of TLS. ok is false if the error is another one.
func describeTLSFailure(err error) (f failure, ok bool) {
	authority, hasAuthority := errors.AsType[x509.UnknownAuthorityError](err)
	name, hasName := errors.AsType[x509.HostnameError](err)
	invalid, hasInvalid := errors.AsType[x509.CertificateInvalidError](err)
	remote, _ := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, nats.ErrSecureConnWanted), errors.Is(err, nats.ErrSecureConnRequired):
		f = failure{
			what: "it does not use TLS",
			hint: "write nats:// in place of tls://, and leave out --tls-ca, --tls-cert and --tls-key",
		}
	case hasAuthority:
		f = failure{
			what: "the authority of its certificate is not known here" + nameAuthority(authority.Cert),
			hint: "give the certificate of that authority with --tls-ca FILE",
		}
	case hasName:
		f = failure{
			what: fmt.Sprintf("its certificate is for %s, and not for %s", namesOf(name.Certificate), name.Host),
			hint: "give the server's name in the URL as the certificate has it, or make a certificate for this name",
		}
	case hasInvalid && invalid.Reason == x509.Expired && time.Now().Before(invalid.Cert.NotBefore):
		f = failure{
			what: "its certificate is not valid before " + invalid.Cert.NotBefore.UTC().Format(time.DateTime) + " UTC",
			hint: "correct the clock of this machine, or make a new certificate for the server",
		}
	case hasInvalid && invalid.Reason == x509.Expired:
		f = failure{
			what: "its certificate expired at " + invalid.Cert.NotAfter.UTC().Format(time.DateTime) + " UTC",
			hint: "make a new certificate for the server; if it is new already, correct the clock of this machine",
		}
	case hasInvalid:
		f = failure{
			what: "its certificate cannot be used: " + strings.TrimPrefix(invalid.Error(), "x509: "),
			hint: "make a new certificate for the server",
		}
	case errors.Is(err, errCertificateRefused),
		remote != nil && remote.Op == "remote error" && strings.Contains(remote.Error(), "certificate"):
		// The second is an alert of the server (RFC 8446 6.2). Package tls does not export its type.
		f = failure{
			what: "it wants a client certificate that its authority has signed",
			hint: clientCertificateHint,
		}
	default:
		return f, false
	}

	f.final = true

	return f, true
}

// isClosedByServer reports whether a connection failed because the server closed it.
func isClosedByServer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// startHint is the hint for a server that is not there.
const startHint = "start it, or correct the URL"

// closedHint is the hint for a server that closes the connection.
const closedHint = "give the port of the NATS server, 4222 by default, or set handshake_first: false in its configuration"

// clientCertificateHint is the hint for a server that wants a client certificate.
const clientCertificateHint = "give one with --tls-cert FILE and --tls-key FILE"

// nameAuthority names the authority of a certificate, in parentheses, if it has a name.
func nameAuthority(c *x509.Certificate) string {
	if c == nil || c.Issuer.CommonName == "" {
		return ""
	}
	return " (" + c.Issuer.CommonName + ")"
}

// namesOf lists the names and addresses of a certificate.
func namesOf(c *x509.Certificate) string {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no server"
	}
	return strings.Join(names, ", ")
}

// refineFailure asks a server that says nothing whether it is one of HTTP, such as the monitoring
// port of a NATS server, or a model server.
func refineFailure(f failure, address string, err error) failure {
	opening, _ := errors.AsType[*net.OpError](err)
	if !errors.Is(err, os.ErrDeadlineExceeded) || opening == nil || opening.Op == "dial" || !speaksHTTP(address) {
		return f
	}

	return failure{
		what: "it is an HTTP server, not a NATS server",
		hint: "give the port of the NATS server, 4222 by default",
	}
}

// speaksHTTP reports whether an HTTP server answers at an address.
func speaksHTTP(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()

	conn.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")

	start := make([]byte, 5)
	_, err = io.ReadFull(conn, start)

	return err == nil && string(start) == "HTTP/"
}
