package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testServer is a NATS server with the buckets of runs.
type testServer struct{ *natsserver.Server }

// startServer starts a server until the end of the test.
func startServer(t *testing.T) testServer {
	t.Helper()

	dir := t.TempDir()
	s, err := natsserver.Start(natsserver.Config{State: dir, Dir: dir, Shared: true, Log: zerolog.Nop()})
	must(t, err)
	t.Cleanup(s.Stop)
	must(t, bus.CreateBuckets(t.Context(), s.JS, s.Limits))

	return testServer{s}
}

// as connects with the join string of a role.
func (s testServer) as(t *testing.T, role proto.Role) *busconn.Connection {
	t.Helper()

	j, err := proto.ParseJoin(s.JoinString(role))
	must(t, err)
	l, err := busconn.Join(j, zerolog.Nop())
	must(t, err)
	t.Cleanup(l.Close)

	return l
}

// The join string for workers is for this user alone, whoever could read the file before, and is not printed.
func TestSayJoinInAFile(t *testing.T) {
	t.Parallel()

	file := filepath.Join(t.TempDir(), "worker")
	must(t, os.WriteFile(file, []byte("old"), 0o644))

	s := server{embedded: startServer(t).Server}
	s.JoinFile = file
	s.Hooks.Printf = func(format string, args ...any) {
		if line := fmt.Sprintf(format, args...); strings.Contains(line, "pm1_") || !strings.Contains(line, file) {
			t.Errorf("printed %q, want the file and no join string", line)
		}
	}
	must(t, s.sayJoin())

	text, err := os.ReadFile(file)
	must(t, err)
	if want := s.embedded.JoinString(proto.RoleWorker) + "\n"; string(text) != want {
		t.Errorf("the file has %q, want %q", text, want)
	}

	info, err := os.Stat(file)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the file has the mode %v, want 0600", info.Mode())
	}
}
