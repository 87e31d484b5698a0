package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/proto"
)

// Two processes that begin at once with a fresh state folder agree, and the one
// file has the join strings of each.
func TestProcessesShareTheIdentity(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := c.input("in.jsonl", 10)
	_, first := c.start("run", in, "-o", "a.jsonl.zst", "--sim", "--sim-ttft", "1m", "--listen", "127.0.0.1:0",
		"--advertise", "127.0.0.1")
	_, second := c.start("run", in, "-o", "b.jsonl.zst", "--sim", "--sim-ttft", "1m", "--listen", "127.0.0.1:0",
		"--advertise", "127.0.0.1")
	var said []string
	for _, out := range []*lockedBuffer{first, second} {
		said = append(said, joinOf(t, out))
	}

	for i, text := range said {
		if stdout, stderr, code := c.output("list", "--join", text); code != exit.CodeOK ||
			strings.Count(stdout, "in_progress") != 1 {
			t.Errorf("join string %d: exit code %d:\n%s%s", i, code, stdout, stderr)
		}
	}

	stdout, stderr, code := c.output("join")
	if code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, stderr)
	}

	for _, text := range said {
		if !strings.Contains(stdout, text+"\n") {
			t.Errorf("join does not print\n%s\nbut\n%s", text, stdout)
		}
	}

	a, b := mustParseJoin(t, said[0]), mustParseJoin(t, said[1])
	if a.Fingerprint != b.Fingerprint || a.Token != b.Token {
		t.Error("the two have different identities")
	}

	// A command that only reads sees both; a command that writes needs the name of one.
	if stdout, stderr, code := c.output("list"); code != exit.CodeOK || strings.Count(stdout, "in_progress") != 2 {
		t.Errorf("list: exit code %d:\n%s%s", code, stdout, stderr)
	}

	if _, stderr, code := c.output("submit", in, "--model", "sim"); code != exit.CodeUsage ||
		!strings.Contains(stderr, "2 buses run on this machine: 127.0.0.1:") {
		t.Errorf("submit: exit code %d:\n%s", code, stderr)
	}
}

// joinOf is the join string that a process has printed, once it has.
func joinOf(t *testing.T, out *lockedBuffer) (text string) {
	t.Helper()

	poll(t, pollTime, "a join string", func() bool {
		_, after, found := strings.Cut(out.String(), "promptmill worker --join ")
		var whole bool
		text, _, whole = strings.Cut(after, "\n")
		return found && whole
	})

	return text
}

func mustParseJoin(t *testing.T, text string) proto.Join {
	t.Helper()
	j, err := proto.ParseJoin(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return j
}

// A damaged file is not replaced silently, since all join strings would end: the error has a
// hint.
func TestIdentityDamaged(t *testing.T) {
	t.Parallel()

	whole := newIdentity(t)
	secret := bytes.Index(whole, []byte("-----BEGIN PROMPTMILL SECRET"))
	short := []byte("-----BEGIN PROMPTMILL SECRET-----\nAAAA\n-----END PROMPTMILL SECRET-----\n")
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"empty", nil},
		{"something else", []byte("nonsense\n")},
		{"cut in the middle", whole[:len(whole)/2]},
		{"cut before the secret", whole[:secret]},
		{"cut in the secret", whole[:secret+50]},
		{"a secret that is too short", append(whole[:secret:secret], short...)},
		{"a certificate that was changed", bytes.Replace(whole, []byte("MII"), []byte("AAA"), 1)},
		{"another key", append(onlyBlock(t, whole, 0), onlyBlock(t, newIdentity(t), 1)...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			if err := os.MkdirAll(c.state, 0o755); err != nil {
				t.Fatal(err)
			}

			path := filepath.Join(c.state, localbus.IdentityFile)
			if err := os.WriteFile(path, test.data, 0o600); err != nil {
				t.Fatal(err)
			}

			stdout, stderr, code := c.output("serve", "--listen", "127.0.0.1:0")
			if code != exit.CodeError || stdout != "" {
				t.Errorf("exit code %d, on standard output %q", code, stdout)
			}

			for _, want := range []string{
				"promptmill: error: ", path, "promptmill: hint: delete it: a new one is made, and old join strings end",
			} {
				if !strings.Contains(stderr, want) {
					t.Errorf("missing output %q:\n%s", want, stderr)
				}
			}

			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, test.data) {
				t.Errorf("the file was changed (%v)", err)
			}

			// The hint is good.
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}

			c.serve()
		})
	}
}

// newIdentity returns the file of a new identity.
func newIdentity(t *testing.T) []byte {
	t.Helper()

	state := t.TempDir()
	_, err := localbus.LoadIdentity(state)
	must(t, err)
	data, err := os.ReadFile(filepath.Join(state, localbus.IdentityFile))
	must(t, err)

	return data
}

// onlyBlock is the PEM block of an index.
func onlyBlock(t *testing.T, data []byte, index int) []byte {
	t.Helper()
	parts := bytes.SplitAfter(data, []byte("-----\n")) // BEGIN and END lines, by turns
	if len(parts) < 2*index+2 {
		t.Fatalf("no block %d in %d bytes", index, len(data))
	}
	return bytes.Join(parts[2*index:2*index+2], nil)
}
