package localbus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

// newState returns a state folder with an identity and its file of join strings.
func newState(t *testing.T) (*Identity, *JoinFile) {
	t.Helper()

	state := t.TempDir()
	id, err := LoadIdentity(state)
	if err != nil {
		t.Fatal(err)
	}

	return id, OpenJoins(state)
}

// Strings have secrets of their own, which only the identity that they were made with knows.
func TestSecretsOfNamedJoins(t *testing.T) {
	t.Parallel()

	id, file := newState(t)
	other, _ := newState(t)
	tokens := map[[proto.TokenSize]byte]string{}
	for _, role := range proto.Roles() {
		tokens[id.Join(role, nil).Token] = "the role " + string(role)
	}

	for i := range 20 {
		name := fmt.Sprintf("box%d", i/2) // each is revoked once, and made again
		record, _, err := file.Create(name, proto.Roles()[i%4], time.Time{}, id)
		if err != nil {
			t.Fatal(err)
		}

		j := id.NamedJoin(record, []string{"h:1"})
		if whose := tokens[j.Token]; whose != "" {
			t.Errorf("string %d has the secret of %s", i, whose)
		}
		tokens[j.Token] = name

		again := id.NamedJoin(record, []string{"h:1"})
		if j.String() != again.String() || j.Name != name || j.Role != record.Role {
			t.Errorf("string %d is %+v and then %+v", i, j, again)
		}

		if other.NamedJoin(record, nil).Token == j.Token {
			t.Error("another identity knows the secret of a string")
		}

		if i%2 == 0 {
			if _, _, err := file.Revoke(name); err != nil {
				t.Fatal(err)
			}
		}
	}

	data, err := os.ReadFile(file.Path())
	if err != nil {
		t.Fatal(err)
	}

	for token := range tokens {
		if j := (proto.Join{Token: token}); strings.Contains(string(data), j.Password()) {
			t.Fatal("a secret stands in the file")
		}
	}

	if info, err := os.Stat(file.Path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode: %v, %v", info.Mode(), err)
	}
}

// A name is free again once its string lets nobody in any more.
func TestNamesOfJoins(t *testing.T) {
	t.Parallel()

	id, file := newState(t)
	other, _ := newState(t)
	create := func(name string, expires time.Time, id *Identity) error {
		_, _, err := file.Create(name, proto.RoleWorker, expires, id)
		return err
	}
	revoke := func(name string) error {
		_, _, err := file.Revoke(name)
		return err
	}

	past := time.Now().Add(-time.Second)
	for _, step := range []struct {
		what string
		got  error
		want error
	}{
		{"box7", create("box7", time.Time{}, id), nil},
		{"box7 again", create("box7", time.Time{}, id), ErrJoinExists},
		{"in capitals", create("BOX7", time.Time{}, id), ErrJoinExists},
		{"revoke it", revoke("box7"), nil},
		{"revoke it again", revoke("box7"), ErrJoinEnded},
		{"revoke another", revoke("box8"), ErrNoJoin},
		{"box7 after that", create("box7", past, id), nil},
		{"box7, which has expired", create("box7", time.Time{}, id), nil},
		{"box7 of a new identity", create("box7", time.Time{}, other), nil},
	} {
		if !errors.Is(step.got, step.want) {
			t.Errorf("%s: %v, want %v", step.what, step.got, step.want)
		}
	}

	if _, _, err := file.Create("a b", proto.RoleWorker, time.Time{}, id); err == nil {
		t.Error("a name with a space is taken")
	}

	joins, revision, err := file.Read()
	if err != nil || len(joins) != 1 || joins[0].Identity != other.ID() || revision != 5 {
		t.Errorf("%+v, revision %d, %v; want one string after 5 changes", joins, revision, err)
	}
}

func TestStateOfNamedJoin(t *testing.T) {
	t.Parallel()

	id, _ := newState(t)
	end := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	made := NamedJoin{Identity: id.ID(), ExpiresAt: end}
	revoked, void := made, made
	revoked.RevokedAt, void.Identity = end, "another"
	for _, tt := range []struct {
		record NamedJoin
		now    time.Time
		want   JoinState
	}{
		{NamedJoin{Identity: id.ID()}, end, JoinValid},
		{made, end.Add(-1), JoinValid},
		{made, end, JoinExpired},
		{made, end.Add(time.Hour), JoinExpired},
		{revoked, end.Add(-time.Hour), JoinRevoked},
		{void, end.Add(-time.Hour), JoinVoid},
	} {
		if got := tt.record.StateAt(tt.now, id); got != tt.want {
			t.Errorf("%+v at %s is %s, want %s", tt.record, tt.now, got, tt.want)
		}
	}
}

// Processes that make and revoke strings at once lose none.
func TestJoinFileAtOnce(t *testing.T) {
	t.Parallel()

	id, file := newState(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			own := OpenJoins(filepath.Dir(file.Path()))
			name := fmt.Sprintf("box%d", i)
			if _, _, err := own.Create(name, proto.RoleWorker, time.Time{}, id); err != nil {
				t.Error(err)
			}
			if _, _, err := own.Revoke(name); i%2 == 0 && err != nil {
				t.Error(err)
			}
		})
	}

	all.Wait()

	joins, revision, err := file.Read()
	if err != nil || len(joins) != 8 || revision != 16 {
		t.Errorf("%d strings after %d changes, %v", len(joins), revision, err)
	}
}

// The record of a string that ended long ago goes with the next change.
func TestOldJoinsGo(t *testing.T) {
	t.Parallel()

	id, file := newState(t)
	for name, expires := range map[string]time.Time{
		"old":   time.Now().Add(-keepEnded - time.Hour),
		"ended": time.Now().Add(-keepEnded + time.Hour),
	} {
		if _, _, err := file.Create(name, proto.RoleWorker, expires, id); err != nil {
			t.Fatal(err)
		}
	}

	joins, _, err := file.Read()
	if err != nil || len(joins) != 1 || joins[0].Name != "ended" {
		t.Errorf("%+v, %v", joins, err)
	}
}

func TestParseJoinFileErrors(t *testing.T) {
	t.Parallel()

	const box = `{"name":"box7","role":"worker","id":"a","identity":"i","created_at":"2026-11-29T22:00:00Z"}`
	for content, want := range map[string]string{
		``:                          "it is not what",
		`{`:                         "it is not what",
		`{"version":1}`:             "it is not what",
		`{"version":2,"joins":[]}`:  "it is of a later promptmill (version 2, this one reads 1)",
		`{"version":1,"joins":[]}x`: "it is not what",
		`{"version":1,"joins":[` + box + `,` + strings.Replace(box, "box7", "BOX7", 1) + `]}`: "string 2 has no name and id",
		`{"version":1,"joins":[` + strings.Replace(box, "box7", "a b", 1) + `]}`:              "the name of string 1",
		`{"version":1,"joins":[` + strings.Replace(box, `"worker"`, `"boss"`, 1) + `]}`:       `has the role "boss"`,
	} {
		err := new(joinFileContent).parse([]byte(content))
		if !errors.Is(err, ErrJoinFile) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", content, err, want)
		}
	}
}

// What is read is written again as it was, and nothing that is read lets a string in without a name, a role and an id.
func FuzzParseJoinFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"revision":3,"joins":[{"name":"box7","role":"worker","id":"a","identity":"i",` +
		`"created_at":"2026-11-29T22:00:00Z","expires_at":"2027-01-31T00:00:00Z"}]}`))
	f.Add([]byte(`{"version":1,"joins":[]}`))
	f.Add([]byte(`{"version":9}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var content joinFileContent
		if err := content.parse(data); err != nil {
			if !errors.Is(err, ErrJoinFile) {
				t.Fatalf("%v does not wrap ErrJoinFile", err)
			}
			return
		}

		for _, j := range content.Joins {
			if j.ID == "" || proto.CheckJoinName(j.Name) != nil || j.StateAt(time.Now(), &Identity{id: "x"}) == "" {
				t.Fatalf("took %+v", j)
			}
		}
	})
}

// The times at which strings were used are those of all buses of a state folder, the latest each.
func TestAddSeen(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	known := []NamedJoin{{ID: "a"}, {ID: "b"}}
	early := time.Date(2026, 11, 29, 22, 0, 0, 0, time.UTC)
	late := early.Add(time.Hour)
	for _, seen := range []map[string]time.Time{
		{"a": late, "gone": late},
		{"a": early, "b": early},
	} {
		if err := AddSeen(state, seen, known); err != nil {
			t.Fatal(err)
		}
	}

	if diff := cmp.Diff(map[string]time.Time{"a": late, "b": early}, ReadSeen(state)); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
}
