package buscontext

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
)

// maxFile is the most bytes of a context's file, far more than a context has.
const maxFile = 1 << 20

// Folder is a folder with contexts. It need not be there: it is made with the first context.
type Folder struct{ dir string }

// Open returns the contexts in a folder.
func Open(dir string) *Folder { return &Folder{dir: dir} }

// OpenDefault returns the contexts of a user: in $XDG_CONFIG_HOME/promptmill, by default
// $HOME/.config/promptmill. The error is one of usage: there is no home folder.
func OpenDefault(getenv func(string) string) (*Folder, error) {
	if dir := getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return Open(filepath.Join(dir, "promptmill")), nil
	}

	if home := getenv("HOME"); home != "" {
		return Open(filepath.Join(home, ".config", "promptmill")), nil
	}

	return nil, exit.Usage("set XDG_CONFIG_HOME to a folder", "there is no home folder to keep contexts in")
}

// path returns the path of a context's file.
func (f *Folder) path(name string) string { return filepath.Join(f.dir, "contexts", name+".json") }

// selectedPath returns the path of the file with the selected name.
func (f *Folder) selectedPath() string { return filepath.Join(f.dir, "context.txt") }

// Save keeps a context under a name. It replaces one that has the name. The error wraps [ErrName], [ErrContent] or
// [ErrWrite].
func (f *Folder) Save(name string, c Context) error {
	if err := errors.Join(CheckName(name), c.check()); err != nil {
		return err
	}

	if err := os.MkdirAll(filepath.Dir(f.path(name)), 0o700); err != nil {
		return describeWrite(err)
	}

	return describeWrite(files.WriteSecret(f.path(name), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)

		return e.Encode(c)
	}))
}

// describeWrite returns the error of a change as one that wraps [ErrWrite].
func describeWrite(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrWrite, err)
}

// Load returns the context of a name. The error wraps [ErrName], [ErrUnknown] or [ErrContent].
func (f *Folder) Load(name string) (Context, error) {
	if err := CheckName(name); err != nil {
		return Context{}, err
	}

	file, err := os.Open(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return Context{}, fmt.Errorf("%w: %s", ErrUnknown, name)
	}
	if err != nil {
		return Context{}, err
	}
	defer file.Close()

	text, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return Context{}, err
	}

	c, err := parseContext(text)
	if err != nil {
		return c, fmt.Errorf("%s: %w", f.path(name), err)
	}

	return c, nil
}

// parseContext returns the context that a file has. A field that is not known is refused: it may be what
// keeps a connection safe.
func parseContext(text []byte) (c Context, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Context{}, fmt.Errorf("%w: %w", ErrContent, err)
	}
	if d.More() {
		return Context{}, fmt.Errorf("%w: there is something behind it", ErrContent)
	}

	return c, c.check()
}

// Names returns the names of all contexts, sorted.
func (f *Folder) Names() ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(f.path("")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}

	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && CheckName(name) == nil {
			names = append(names, name)
		}
	}

	slices.Sort(names)

	return names, nil
}

// Selected returns the name of the context that is used where none is named. It is empty if there is none.
func (f *Folder) Selected() (string, error) {
	text, err := os.ReadFile(f.selectedPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}

// Select has a context used where none is named. An empty name selects none. The error wraps one of [Folder.Load], or
// [ErrWrite].
func (f *Folder) Select(name string) error {
	if name == "" {
		if err := os.Remove(f.selectedPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return describeWrite(err)
		}
		return nil
	}

	if _, err := f.Load(name); err != nil {
		return err
	}

	return describeWrite(files.WriteSecret(f.selectedPath(), func(w io.Writer) error {
		_, err := fmt.Fprintln(w, name)
		return err
	}))
}

// Forget removes a context. If it is selected, none is afterwards.
func (f *Folder) Forget(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}

	err := os.Remove(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrUnknown, name)
	}
	if err != nil {
		return describeWrite(err)
	}

	if selected, _ := f.Selected(); selected == name {
		return f.Select("")
	}

	return nil
}
