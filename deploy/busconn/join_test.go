package busconn

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/proto"
)

// impostor is a listener that starts like a NATS server and records the data of its clients.
type impostor struct {
	address string

	mu    sync.Mutex
	sent  []byte // by clients, inside TLS or in plain text
	conns int
}

// newImpostor listens with a certificate, or without TLS if it is nil.
func newImpostor(t *testing.T, cert *tls.Certificate) *impostor {
	t.Helper()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	i := &impostor{address: l.Addr().String()}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { i.serve(conn, cert) })
		}
	})

	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})

	return i
}

func (i *impostor) serve(conn net.Conn, cert *tls.Certificate) {
	defer conn.Close()

	conn.SetDeadline(time.Now().Add(30 * time.Second))
	i.mu.Lock()
	i.conns++
	i.mu.Unlock()
	fmt.Fprintf(conn,
		"INFO {\"server_id\":\"X\",\"version\":\"2.15.2\",\"proto\":1,\"headers\":true,\"max_payload\":1048576,\"tls_required\":%t}\r\n",
		cert != nil)

	if cert != nil {
		conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*cert}})
	}

	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf) // of TLS: the handshake, and then its payload
		i.mu.Lock()
		i.sent = append(i.sent, buf[:n]...)
		enough := bytes.Contains(i.sent, []byte("PING\r\n"))
		i.mu.Unlock()
		if err != nil || enough {
			return
		}
	}
}

// received returns the data of the clients, and their number.
func (i *impostor) received() (string, int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return string(i.sent), i.conns
}

// Join sends the password only to a server with the certificate of the join string: not to one with
// another certificate, and not to one without TLS.
func TestJoinSendsPasswordToPinnedServer(t *testing.T) {
	t.Parallel()

	right, err := localbus.LoadIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}

	wrong, err := localbus.LoadIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		name string
		cert *tls.Certificate
		sent bool   // the password
		want string // in the error
	}{
		{"the right certificate", &right.Certificate, true, ""}, // proves that the test sees a password
		{"another certificate", &wrong.Certificate, false, "another certificate"},
		{"no TLS", nil, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			i := newImpostor(t, test.cert)
			j := right.Join(proto.RoleWorker, []string{i.address})
			l, err := Join(j, zerolog.Nop())
			if err == nil {
				l.Close()
				t.Fatal("joined a server that is not a bus")
			}
			if exit.Code(err) != exit.CodeUnreachable || !strings.Contains(err.Error(), test.want) ||
				!strings.Contains(err.Error(), i.address) {
				t.Errorf("exit code %d: %v", exit.Code(err), err)
			}

			sent, conns := i.received()
			if conns == 0 {
				t.Error("no client has connected")
			}

			if strings.Contains(sent, j.Password()) != test.sent || !test.sent && sent != "" {
				t.Errorf("the client has sent %q", sent)
			}
		})
	}
}

// A command that has found the bus on its machine does not speak of a join string, since it was
// given none.
func TestConnectToReplacedBus(t *testing.T) {
	t.Parallel()

	wrong, err := localbus.LoadIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}

	i, state := newImpostor(t, &wrong.Certificate), t.TempDir()
	folder := filepath.Join(state, "serve")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := (localbus.Bus{Listen: i.address}).Write(filepath.Join(folder, localbus.FileName)); err != nil {
		t.Fatal(err)
	}

	_, err = Connect(Options{State: state}, proto.RoleWorker, zerolog.Nop())
	want := "the bus at " + i.address + " has another identity than identity.pem in the state folder"
	if exit.Code(err) != exit.CodeUnreachable || err.Error() != want || strings.Contains(exit.Hint(err), "join") {
		t.Errorf("exit code %d: %v (%s)", exit.Code(err), err, exit.Hint(err))
	}
}
