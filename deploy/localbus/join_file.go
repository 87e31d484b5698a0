package localbus

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
	"sync"
	"time"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/proto"
)

// JoinFileName is the name of the file in the state folder with the records of the strings that have names.
const JoinFileName = "join-strings.json"

const (
	// joinFileVersion is the version of the format.
	joinFileVersion = 1
	// maxJoinFile is the most bytes of the file: a hundred thousand strings.
	maxJoinFile = 32 << 20
	// joinLockTime is how long a change waits for the changes of other processes.
	joinLockTime = 10 * time.Second
	// keepEnded is how long the record of a string stays after its end.
	keepEnded = 365 * 24 * time.Hour
)

var (
	// ErrJoinExists is returned for a name that another string has.
	ErrJoinExists = errors.New("a join string has this name already")
	// ErrNoJoin is returned for a name that no string has.
	ErrNoJoin = errors.New("there is no join string of this name")
	// ErrJoinEnded is returned for a string that is revoked already.
	ErrJoinEnded = errors.New("the join string is revoked already")
	// ErrJoinFile is returned for a file that has other content than this package writes.
	ErrJoinFile = errors.New("it is not what promptmill join create writes")
)

// joinFileContent is the content of a file.
type joinFileContent struct {
	Version int `json:"version"`
	// Revision is the number of changes so far.
	Revision int64 `json:"revision"`
	// Joins are the records, the oldest first.
	Joins []NamedJoin `json:"joins"`
}

// JoinFile is the file of a state folder with the records of its named join strings. Several goroutines and processes
// may use it at once: a change replaces the whole file in one step and under a lock, so that a process which dies
// leaves the file as it was before or after the change.
type JoinFile struct {
	path string

	// mu guards the fields below.
	mu sync.Mutex
	// info is the file as it was read last; nil: it was not there.
	info    os.FileInfo
	content joinFileContent
}

// OpenJoins returns the file of a state folder. It need not be there: it is made with the first string.
func OpenJoins(state string) *JoinFile { return &JoinFile{path: filepath.Join(state, JoinFileName)} }

// Path returns the path of the file.
func (f *JoinFile) Path() string { return f.path }

// Read returns the records, the oldest first, and the number of changes so far. It reads the file if it has changed.
// The caller does not change the list. The error is for people.
func (f *JoinFile) Read() ([]NamedJoin, int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()

	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.info, f.content = nil, joinFileContent{}
		return nil, 0, nil
	case err == nil && f.info != nil && isSameFile(f.info, info):
		return f.content.Joins, f.content.Revision, nil
	}

	content, info, err := readJoinFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		f.info, f.content = nil, joinFileContent{}
		return nil, 0, nil
	}
	if err != nil {
		f.info = nil
		return nil, 0, err
	}

	f.info, f.content = info, content

	return content.Joins, content.Revision, nil
}

// Create makes the record of a new string for the bus with an identity, and returns it with the number of the change. A
// name follows the rules of [proto.CheckJoinName], and is free if no other string has it that may still
// be used. expires is in the future, or the zero time.
func (f *JoinFile) Create(
	name string, role proto.Role, expires time.Time, id *Identity,
) (made NamedJoin, revision int64, err error) {
	if err := proto.CheckJoinName(name); err != nil {
		return NamedJoin{}, 0, fmt.Errorf("the name of a join string: %w", err)
	}

	made = newNamedJoin(name, role, expires, id)
	revision, err = f.change(func(joins []NamedJoin) ([]NamedJoin, error) {
		if i := findJoin(joins, name); i >= 0 {
			if joins[i].StateAt(time.Now(), id) == JoinValid {
				return nil, ErrJoinExists
			}
			joins = slices.Delete(joins, i, i+1)
		}
		return append(joins, made), nil
	})

	return made, revision, err
}

// Revoke revokes the string with a name, and returns it with the number of the change.
func (f *JoinFile) Revoke(name string) (revoked NamedJoin, revision int64, err error) {
	revision, err = f.change(func(joins []NamedJoin) ([]NamedJoin, error) {
		i := findJoin(joins, name)
		switch {
		case i < 0:
			return nil, ErrNoJoin
		case !joins[i].RevokedAt.IsZero():
			return nil, ErrJoinEnded
		}

		joins[i].RevokedAt = time.Now().UTC().Truncate(time.Second)
		revoked = joins[i]

		return joins, nil
	})

	return revoked, revision, err
}

// findJoin returns the index of the record with a name, in whatever case. It is negative if there is none.
func findJoin(joins []NamedJoin, name string) int {
	return slices.IndexFunc(joins, func(j NamedJoin) bool { return strings.EqualFold(j.Name, name) })
}

// change replaces the records of the file, and returns the number of the change. The new file is locked while it is
// written, and the old one is read under that lock.
func (f *JoinFile) change(edit func([]NamedJoin) ([]NamedJoin, error)) (revision int64, err error) {
	next, err := f.lock()
	if err != nil {
		return 0, err
	}
	defer next.Abort()

	old, _, err := readJoinFile(next.Path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}

	joins, err := edit(old.Joins)
	if err != nil {
		return 0, err
	}

	now := time.Now()
	joins = slices.DeleteFunc(joins, func(j NamedJoin) bool {
		ended := j.endedAt(now)
		return !ended.IsZero() && now.Sub(ended) > keepEnded
	})

	e := json.NewEncoder(next)
	e.SetIndent("", "  ")
	content := joinFileContent{
		Version:  joinFileVersion,
		Revision: old.Revision + 1,
		Joins:    append([]NamedJoin{}, joins...), // never null
	}

	return content.Revision, describeJoinFault("write", f.path, next.Commit(e.Encode(content)))
}

// lock begins the next version of the file. Other processes hold it for milliseconds.
func (f *JoinFile) lock() (*atomicfile.File, error) {
	for end := time.Now().Add(joinLockTime); ; time.Sleep(5 * time.Millisecond) {
		next, err := atomicfile.Create(f.path, 0o600)
		switch {
		case err == nil:
			return next, nil
		case !errors.Is(err, atomicfile.ErrLocked):
			return nil, describeJoinFault("write", f.path, err)
		case time.Now().After(end):
			return nil, fmt.Errorf("another process has been changing the join strings in %s for %s", f.path, joinLockTime)
		}
	}
}

// isSameFile reports whether a file was not changed between two looks at it.
func isSameFile(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// readJoinFile reads and checks a file.
func readJoinFile(path string) (joinFileContent, os.FileInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return joinFileContent{}, nil, describeJoinFault("read", path, err)
	}
	defer file.Close()

	info, err := file.Stat()
	if err != nil {
		return joinFileContent{}, nil, describeJoinFault("read", path, err)
	}

	data, err := io.ReadAll(io.LimitReader(file, maxJoinFile+1))
	if err != nil {
		return joinFileContent{}, nil, describeJoinFault("read", path, err)
	}

	content, err := parseJoinFile(data)
	if err != nil {
		return joinFileContent{}, nil, fmt.Errorf("the join strings in %s cannot be used: %w", path, err)
	}

	return content, info, nil
}

// parseJoinFile parses the content of a file.
func parseJoinFile(data []byte) (c joinFileContent, err error) {
	if len(data) > maxJoinFile {
		return c, fmt.Errorf("%w: it is larger than %d MB", ErrJoinFile, maxJoinFile>>20)
	}

	var format struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &format); err == nil && format.Version > joinFileVersion {
		return c, fmt.Errorf("%w: it is of a later promptmill (version %d, this one reads %d)", ErrJoinFile,
			format.Version, joinFileVersion)
	}

	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || d.More() || c.Joins == nil {
		return joinFileContent{}, ErrJoinFile
	}

	names, ids := map[string]bool{}, map[string]bool{}
	for i, j := range c.Joins {
		folded, err := strings.ToLower(j.Name), proto.CheckJoinName(j.Name)
		switch {
		case err != nil:
			return joinFileContent{}, fmt.Errorf("%w: the name of string %d: %w", ErrJoinFile, i+1, err)
		case names[folded] || ids[j.ID] || j.ID == "":
			return joinFileContent{}, fmt.Errorf("%w: string %d has no name and id of its own", ErrJoinFile, i+1)
		case !slices.Contains(proto.Roles(), j.Role):
			return joinFileContent{}, fmt.Errorf("%w: string %d has the role %q, which there is not", ErrJoinFile, i+1, j.Role)
		}
		names[folded], ids[j.ID] = true, true
	}

	return c, nil
}

// describeJoinFault returns the error of the system for a person.
func describeJoinFault(verb, path string, err error) error {
	if err == nil {
		return nil
	}

	if fault, ok := errors.AsType[*fs.PathError](err); ok {
		err = fault.Err
	} else if inner := errors.Unwrap(err); inner != nil {
		err = inner // without the path, which atomicfile names too
	}

	return fmt.Errorf("%s the join strings in %s: %w", verb, path, err)
}
