package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
)

// A join string and a password come from files as well as from the command line. A file that other
// users may read is used, with a warning.
func TestSecretsFromFiles(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.serve()
	away := newCommand(t) // without a bus of its own
	open := filepath.Join(away.dir, "open")
	must(t, os.WriteFile(open, []byte(c.must("join", "reader")), 0o600))
	must(t, os.Chmod(open, 0o644))

	closed := filepath.Join(away.dir, "closed")
	must(t, os.WriteFile(closed, []byte(c.must("join", "reader")), 0o600))

	password := filepath.Join(away.dir, "password")
	must(t, os.WriteFile(password, []byte("secret-of-reader\n"), 0o600))
	server := startNATSServer(t, natsAccounts(t))

	reader := []string{"list", "--nats", server, "--nats-user", "reader"}

	const warning = "other users of this machine may read the secret; chmod 600 "
	for name, tt := range map[string]struct {
		env  []string
		args []string
		says string
	}{
		"flag":     {args: []string{"list", "--join-file", closed}},
		"open":     {args: []string{"list", "--join-file", open}, says: warning + open},
		"variable": {env: []string{"PROMPTMILL_JOIN_FILE=" + closed}, args: []string{"list"}},
		"flag before a variable": {
			env:  []string{"PROMPTMILL_JOIN=nonsense", "PROMPTMILL_NATS=nats://127.0.0.1:1"},
			args: []string{"list", "--join-file", closed},
		},
		"password": {args: append(slices.Clone(reader), "--nats-password-file", password)},
		"variable of a password": {
			env:  []string{"NATS_PASSWORD_FILE=" + password},
			args: reader,
		},
		"a file before NATS_PASSWORD": {
			env:  []string{"NATS_PASSWORD=wrong", "PROMPTMILL_NATS_PASSWORD_FILE=" + password},
			args: reader,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			running, out := away.startAs(tt.env, tt.args...)
			code := waitExit(t, running, out, patience)
			if code != exit.CodeOK || !strings.Contains(out.String(), tt.says) ||
				tt.says == "" && strings.Contains(out.String(), warning) {
				t.Errorf("exit code %d, want %q:\n%s", code, tt.says, out)
			}
		})
	}
}

// A worker whose bus comes back with another identity goes on with the join string that its file has now.
func TestNewStringInJoinFile(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	address := freeAddress(t)
	serving, out := c.serve("--listen", address)
	file := filepath.Join(c.dir, "join")
	must(t, os.WriteFile(file, []byte(joinOf(t, out)), 0o600))

	working, said := c.start("worker", "--sim", "--join-file", file)
	c.workers(1)
	terminate(t, serving, out)
	must(t, os.Remove(filepath.Join(c.state, localbus.IdentityFile)))

	_, out = c.serve("--listen", address)
	must(t, os.WriteFile(file, []byte(joinOf(t, out)), 0o600))
	poll(t, pollTime, "the worker to be back", func() bool {
		return strings.Contains(said.String(), "reconnected to the bus")
	})

	c.workers(1)
	terminate(t, working, said)
}
