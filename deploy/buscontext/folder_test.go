package buscontext

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A context comes back as it was saved, only its owner may read it, and forgetting the selected one
// selects none.
func TestFolder(t *testing.T) {
	t.Parallel()

	dir := filepath.Join(t.TempDir(), "promptmill")
	f := Open(dir)
	contexts := map[string]Context{
		"head": {Join: "pm1_x"},
		"nats.example": {
			URL:         "nats://a:4222,nats://b:4222",
			User:        "reader",
			Password:    "<&>",
			Certificate: "/c.pem",
		},
	}
	for name, c := range contexts {
		must(t, f.Save(name, Context{Join: "old"}))
		must(t, os.Chmod(f.path(name), 0o644)) // as a copy of the folder may have it
		must(t, f.Save(name, c))

		got, err := f.Load(name)
		must(t, err)
		if diff := cmp.Diff(c, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}

	must(t, f.Select("head"))
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
		info, err := d.Info()
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	must(t, err)

	names, err := f.Names()
	must(t, err)
	if want := []string{"head", "nats.example"}; !slices.Equal(names, want) {
		t.Errorf("the names are %q, want %q", names, want)
	}

	must(t, f.Forget("nats.example"))
	if got, err := f.Selected(); err != nil || got != "head" {
		t.Errorf("selected %q, %v, want head", got, err)
	}

	must(t, f.Forget("head"))
	if got, err := f.Selected(); err != nil || got != "" {
		t.Errorf("selected %q, %v, want none", got, err)
	}
}

// Contexts that are saved and selected at once are all saved, and one of them is selected.
func TestSaveAtOnce(t *testing.T) {
	t.Parallel()

	f := Open(filepath.Join(t.TempDir(), "promptmill"))
	names := []string{"a", "b", "c", "d"}
	var all sync.WaitGroup
	for range 8 {
		for _, name := range names {
			all.Go(func() {
				if err := errors.Join(f.Save("same", Context{Join: name}), f.Save(name, Context{Join: name}),
					f.Select(name)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()

	got, err := f.Selected()
	must(t, err)
	if !slices.Contains(names, got) {
		t.Errorf("selected %q", got)
	}

	same, err := f.Load("same")
	must(t, err)
	if !slices.Contains(names, same.Join) {
		t.Errorf("the context that all have saved is %+v", same)
	}
}

// A folder that cannot be changed is no fault of the context.
func TestErrWrite(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	f := Open(dir)
	must(t, f.Save("head", Context{Join: "j"}))
	must(t, os.MkdirAll(filepath.Join(dir, "context.txt", "x"), 0o700))
	for _, err := range []error{f.Select("head"), f.Select(""), Open("/dev/null").Save("head", Context{Join: "j"})} {
		if !errors.Is(err, ErrWrite) {
			t.Errorf("the error is %v", err)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()

	f := Open(t.TempDir())
	for _, name := range []string{"", "..", "a/b", "-x", ".x", "a b", strings.Repeat("x", MaxName+1)} {
		_, err := f.Load(name)
		for _, err := range []error{err, f.Save(name, Context{Join: "j"}), f.Forget(name), CheckName(name)} {
			if !errors.Is(err, ErrName) {
				t.Errorf("%q: the error is %v", name, err)
			}
		}
	}

	_, err := f.Load("nosuch")
	for _, err := range []error{err, f.Select("nosuch"), f.Forget("nosuch")} {
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("an unknown name: the error is %v", err)
		}
	}

	for _, c := range []Context{{}, {Join: "j", URL: "u"}, {User: "u"}} {
		if err := f.Save("x", c); !errors.Is(err, ErrContent) {
			t.Errorf("%+v: the error is %v", c, err)
		}
	}

	if names, err := f.Names(); err != nil || len(names) > 0 {
		t.Errorf("a refusal leaves %q, %v", names, err)
	}
}

func FuzzParseContext(f *testing.F) {
	for _, text := range []string{
		`{"join":"pm1_x"}`, `{"url":"nats://a"}`, `{}`, `{"join":"j","url":"u"}`, `{"jion":"x"}`, `{"join":"j"}{}`, `[`,
	} {
		f.Add([]byte(text))
	}

	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseContext(text)
		if err != nil {
			if !errors.Is(err, ErrContent) {
				t.Errorf("the error is %v", err)
			}
			return
		}

		folder := Open(t.TempDir())
		must(t, folder.Save("x", c))
		got, err := folder.Load("x")
		must(t, err)
		if diff := cmp.Diff(c, got); diff != "" {
			t.Errorf("it comes back otherwise:\n%s", diff)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
