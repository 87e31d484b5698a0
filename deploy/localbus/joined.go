package localbus

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/deploy/files"
)

// Joined is the report of a running bus about its named join strings. The bus writes it into its folder.
type Joined struct {
	// Identity is the [Identity.ID] of the bus.
	Identity string `json:"identity"`
	// Revision is the change of the [JoinFile] that the bus has acted on: the connections of strings that ended with it
	// are closed.
	Revision int64 `json:"revision"`
	// Connections are the numbers of open connections, by the IDs of the records.
	Connections map[string]int `json:"connections"`
}

// Equal reports whether two buses, or one at two times, say the same.
func (j Joined) Equal(other Joined) bool {
	return j.Identity == other.Identity && j.Revision == other.Revision && maps.Equal(j.Connections, other.Connections)
}

// joinedFile is the name of the file in the folder of a bus.
const joinedFile = "joined.json"

// Write writes what a bus says into its folder.
func (j Joined) Write(dir string) error {
	return files.Write(filepath.Join(dir, joinedFile), 0o600, func(w io.Writer) error {
		return json.NewEncoder(w).Encode(j)
	})
}

// ReadJoined reads what a bus says from its folder. The error is [fs.ErrNotExist] for a bus that says nothing, which is
// one of an earlier version.
func ReadJoined(dir string) (j Joined, err error) {
	data, err := os.ReadFile(filepath.Join(dir, joinedFile))
	if err != nil {
		return j, err
	}
	return j, json.Unmarshal(data, &j)
}

// RemoveJoined removes what a bus has said, when it ends.
func RemoveJoined(dir string) { os.Remove(filepath.Join(dir, joinedFile)) }

// joinSeenFile is the name of the file in the state folder with the times at which strings were used last.
const joinSeenFile = "join-seen.json"

// ReadSeen returns when the strings with names were used last, at any bus of a state folder, by the IDs of the records.
// A string that is in use has a time within the last minute.
func ReadSeen(state string) map[string]time.Time {
	seen := map[string]time.Time{}
	if data, err := os.ReadFile(filepath.Join(state, joinSeenFile)); err == nil {
		json.Unmarshal(data, &seen) // a damaged file says nothing, and is written again
	}
	return seen
}

// AddSeen adds times to those of [ReadSeen], and leaves out the strings that no record has. It changes nothing while
// another process does so, with an error that wraps [atomicfile.ErrLocked].
func AddSeen(state string, seen map[string]time.Time, known []NamedJoin) error {
	path := filepath.Join(state, joinSeenFile)
	next, err := atomicfile.Create(path, 0o600)
	if err != nil {
		return err
	}
	defer next.Abort()

	old, all := ReadSeen(state), map[string]time.Time{}
	for _, j := range known {
		last := old[j.ID]
		if seen[j.ID].After(last) {
			last = seen[j.ID].UTC().Truncate(time.Second)
		}
		if !last.IsZero() {
			all[j.ID] = last
		}
	}

	return next.Commit(json.NewEncoder(next).Encode(all))
}
