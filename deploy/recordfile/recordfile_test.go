package recordfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var (
	errContent = errors.New("it is no list of letters")
	letters    = Format{Subject: "the letters", Version: 3, ErrContent: errContent, most: 1 << 20}
)

// lettersFile is the content of a file.
type lettersFile struct {
	Version int    `json:"version"`
	Letters string `json:"letters"`
}

func (l *lettersFile) parse(data []byte) error { return letters.Decode(data, l) }

// A change after which the file could not be read again is refused, and the file stays as it was.
func TestFull(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "letters.json")
	change := func(text string) error {
		var old lettersFile
		return letters.Change(path, old.parse, func() (any, error) {
			return lettersFile{Version: letters.Version, Letters: text}, nil
		})
	}
	read := func() (l lettersFile) {
		if _, err := letters.Refresh(path, &Look{}, l.parse); err != nil {
			t.Fatal(err)
		}
		return l
	}

	empty := lettersFile{Version: 3}
	if err := change(""); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}

	room := letters.most - int(info.Size())
	if err := change(strings.Repeat("x", room+1)); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), path) {
		t.Errorf("one byte too many: the error is %v", err)
	}
	if got := read(); got != empty {
		t.Errorf("after a refusal the file has %d letters", len(got.Letters))
	}

	if err := change(strings.Repeat("x", room)); err != nil {
		t.Fatal(err)
	}
	if got := read(); len(got.Letters) != room {
		t.Errorf("the file has %d letters, want %d", len(got.Letters), room)
	}
	if err := change("a"); err != nil {
		t.Errorf("a full file cannot be changed: %v", err)
	}
}

// A file is read when it has changed, also one that cannot be used.
func TestRefresh(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "letters.json")
	var look Look
	var reads int
	refresh := func() (bool, error) {
		return letters.Refresh(path, &look, func(data []byte) error {
			reads++
			return new(lettersFile).parse(data)
		})
	}

	for _, step := range []struct {
		text   string // of the file; empty: it is not there
		reads  int    // so far
		usable bool
	}{
		{text: "", reads: 0, usable: true},
		{text: `{"version": 3}`, reads: 1, usable: true},
		{text: `{"version": 3`, reads: 2},
		{text: `{"version": 3, "letters": "a"}`, reads: 3, usable: true},
		{text: "", reads: 3, usable: true},
	} {
		os.Remove(path)
		if step.text != "" {
			if err := os.WriteFile(path, []byte(step.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}

		for range 2 {
			if _, err := refresh(); (err == nil) != step.usable || reads != step.reads {
				t.Errorf("%q: the error is %v after %d reads, want %d", step.text, err, reads, step.reads)
			}
		}
		if look.Exists() != (step.text != "") {
			t.Errorf("%q: it is there: %v", step.text, look.Exists())
		}
	}
}

func TestDecodeVersions(t *testing.T) {
	t.Parallel()

	const later = "it is of a later promptmill (version 4, this one reads 3)"
	for text, want := range map[string]string{
		`{"version": 3, "letters": "a"}`:          "",
		`{"version": 1}`:                          "",
		`{"version": 4, "letters": "a"}`:          later,
		`{"version": 4, "words": ["a"]}`:          later,
		`{"words": {"version": 9}, "version": 4}`: later,
		`{"words": {"version": 4}, "version": 3}`: errContent.Error(),
		`{"version": "4"}`:                        errContent.Error(),
		`{"version": 3`:                           errContent.Error(),
		`{"version": 3}{}`:                        errContent.Error(),
		`[{"version": 4}]`:                        errContent.Error(),
		``:                                        errContent.Error(),
		`{"letters": "` + strings.Repeat("x", letters.most): errContent.Error() + ": it is larger than 1 MB",
	} {
		var l lettersFile
		err := l.parse([]byte(text))
		if want == "" && err == nil {
			continue
		}
		if !errors.Is(err, errContent) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%.60s: the error is %v, want %q", text, err, want)
		}
	}
}
