package localbus

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/promptmill/promptmill/proto"
)

// Processes that load a new identity at the same time agree on one.
func TestLoadIdentityOnce(t *testing.T) {
	t.Parallel()

	state := filepath.Join(t.TempDir(), "deep", "state") // also made
	ids := make([]*Identity, 16)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() {
			var err error
			if ids[i], err = LoadIdentity(state); err != nil {
				t.Error(err)
			}
		})
	}

	group.Wait()
	if t.Failed() {
		return
	}

	later, err := LoadIdentity(state)
	if err != nil {
		t.Fatal(err)
	}

	for _, id := range ids {
		if id.secret != later.secret || !bytes.Equal(id.Certificate.Certificate[0], later.Certificate.Certificate[0]) {
			t.Fatal("two that began at once have different identities")
		}
	}

	if later.secret == [32]byte{} {
		t.Error("the secret is empty")
	}

	files, err := os.ReadDir(state)
	if err != nil || len(files) != 1 {
		t.Errorf("want the one file in %s, there are %v (%v)", state, files, err)
	}

	info, err := os.Stat(filepath.Join(state, IdentityFile))
	if err != nil {
		t.Fatal(err)
	}

	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the file's mode is %o: others can read the key", mode)
	}
}

// Each role has its own join string, which is stable and reveals nothing of the others'.
func TestJoinStringsOfRoles(t *testing.T) {
	t.Parallel()

	id, err := LoadIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}

	other, err := LoadIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}

	texts, tokens := map[string]bool{}, map[[proto.TokenSize]byte]bool{}
	for _, of := range []*Identity{id, other} {
		for _, role := range proto.Roles() {
			j := of.Join(role, []string{"127.0.0.1:4333"})
			texts[j.String()], tokens[j.Token] = true, true
			if again := of.Join(role, []string{"127.0.0.1:4333"}); again.String() != j.String() {
				t.Errorf("%s: two strings of the same", role)
			}

			if back, err := proto.ParseJoin(j.String()); err != nil || back.Role != role || back.Token != j.Token {
				t.Errorf("%s: comes back as %s (%v)", role, back.Role, err)
			}
		}
	}

	if want := 2 * len(proto.Roles()); len(texts) != want || len(tokens) != want {
		t.Errorf("%d strings and %d tokens of %d roles of two identities", len(texts), len(tokens), want)
	}
}
