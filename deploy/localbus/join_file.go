package localbus

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/promptmill/promptmill/deploy/recordfile"
	"github.com/promptmill/promptmill/proto"
)

// JoinFileName is the name of the file in the state folder with the records of the strings that have names.
const JoinFileName = "join-strings.json"

// JoinFileHint says what to do about an error that wraps [ErrJoinFile].
const JoinFileHint = "repair the file, or move it away: the strings in it let nobody in then"

// keepEnded is the time for which the record of a string stays after its end.
const keepEnded = 365 * 24 * time.Hour

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

// joinFormat is the format of the file.
var joinFormat = recordfile.Format{
	Subject:    "the join strings",
	Version:    1,
	ErrContent: ErrJoinFile,
}

// joinFileContent is the content of a file.
type joinFileContent struct {
	Version int `json:"version"`
	// Revision is the number of changes so far.
	Revision int64 `json:"revision"`
	// Joins are the records, the oldest first.
	Joins []NamedJoin `json:"joins"`
}

// JoinFile is the file of a state folder with the records of its named join strings. Several goroutines and processes
// may use it at once, see [recordfile].
type JoinFile struct {
	path string

	// mu guards the fields below.
	mu      sync.Mutex
	look    recordfile.Look
	content joinFileContent
}

// OpenJoins returns the file of a state folder. It need not be there: it is made with the first string.
func OpenJoins(state string) *JoinFile { return &JoinFile{path: filepath.Join(state, JoinFileName)} }

// Path returns the path of the file.
func (f *JoinFile) Path() string { return f.path }

// Read returns the records, the oldest first, and the number of changes so far. It reads the file if it has changed,
// and returns the same list until then. The caller does not change it. The error is for people.
func (f *JoinFile) Read() ([]NamedJoin, int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()

	var content joinFileContent
	changed, err := joinFormat.Refresh(f.path, &f.look, content.parse)
	if err != nil {
		return nil, 0, err
	}

	if changed {
		f.content = content
	}

	return f.content.Joins, f.content.Revision, nil
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

// change replaces the records of the file, and returns the number of the change.
func (f *JoinFile) change(edit func([]NamedJoin) ([]NamedJoin, error)) (revision int64, err error) {
	var old joinFileContent
	err = joinFormat.Change(f.path, old.parse, func() (any, error) {
		joins, err := edit(old.Joins)
		if err != nil {
			return nil, err
		}

		now := time.Now()
		joins = slices.DeleteFunc(joins, func(j NamedJoin) bool {
			ended := j.endedAt(now)
			return !ended.IsZero() && now.Sub(ended) > keepEnded
		})

		return joinFileContent{
			Version:  joinFormat.Version,
			Revision: old.Revision + 1,
			Joins:    append([]NamedJoin{}, joins...), // never null
		}, nil
	})
	if err != nil {
		return 0, err
	}

	return old.Revision + 1, nil
}

// parse parses the content of a file.
func (c *joinFileContent) parse(data []byte) error {
	parsed := joinFileContent{}
	if err := joinFormat.Decode(data, &parsed); err != nil {
		return err
	}
	if parsed.Joins == nil {
		return ErrJoinFile
	}

	names, ids := map[string]bool{}, map[string]bool{}
	for i, j := range parsed.Joins {
		folded, err := strings.ToLower(j.Name), proto.CheckJoinName(j.Name)
		switch {
		case err != nil:
			return fmt.Errorf("%w: the name of string %d: %w", ErrJoinFile, i+1, err)
		case names[folded] || ids[j.ID] || j.ID == "":
			return fmt.Errorf("%w: string %d has no name and id of its own", ErrJoinFile, i+1)
		case !slices.Contains(proto.Roles(), j.Role):
			return fmt.Errorf("%w: string %d has the role %q, which there is not", ErrJoinFile, i+1, j.Role)
		}
		names[folded], ids[j.ID] = true, true
	}

	*c = parsed

	return nil
}
