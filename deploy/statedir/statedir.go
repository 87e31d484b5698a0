// Package statedir has the state folder of promptmill and the folders in it: one for each
// output that a run of this machine writes, one for serve, and one for each worker.
//
// A process that works on an output holds the lock of its folder, see [Lock]. The lock ends
// with the process, so a killed one leaves nothing to clean up, and the same command finds the
// folder again by the output's path, see [ForOutput].
package statedir

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// ForOutput returns the folder of a run's state. Each output has its own, so that runs do not share
// a store. The same command finds it again, whatever links lead to the output's folder.
func ForOutput(state, output string) string {
	dir, name := filepath.Split(output)
	if target, err := filepath.EvalSymlinks(dir); err == nil {
		output = filepath.Join(target, name)
	}
	sum := sha256.Sum256([]byte(output))
	return filepath.Join(state, cutName(name, maxName)+"-"+hex.EncodeToString(sum[:4]))
}

// maxName is the maximum number of bytes of an output's name in the name of its state folder. The
// state folder may lie on a file system with shorter names.
const maxName = 64

// cutName returns as much of a text as fits into n bytes, in whole characters.
func cutName(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Make makes a folder in a state folder, and the state folder itself, for this user alone: prompts
// and logs lie there. It closes existing folders to other users, except a state folder that also
// holds other files, and one of another user, such as a volume that is mounted into a container.
func Make(state, dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = closeFolder(dir)
	}
	if dir == state && errors.Is(err, fs.ErrPermission) {
		err = tryToWrite(state) // only its owner can close it; what is written there is closed itself
	}
	if err != nil {
		return exit.WithHint(fmt.Errorf("make the state folder: %w", err),
			WriteHint(state, err, "choose another place with --state DIR"))
	}

	if holdsOnlyState(state) {
		closeFolder(state) // fails if it is another user's; the folder in it is closed anyway
	}

	return nil
}

// WriteHint returns what to do about a folder that cannot be written into: let this user in, mount something there, or
// what otherwise says. In a container the folder is often a volume of another user.
func WriteHint(dir string, err error, otherwise string) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Sprintf("mount a folder or a volume that can be written at %s, or %s", dir, otherwise)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("let user %d write there (in a container: chown %d the folder that is mounted at %s), or %s",
			os.Getuid(), os.Getuid(), dir, otherwise)
	}

	return otherwise
}

// LongestPath is the longest path in a folder of state: a consumer's file in the bus's store, of a
// run with the longest id and a model with the longest token.
var LongestPath = filepath.Join("nats", "jetstream", proto.OwnerAccount, "streams",
	proto.ResultsStream(strings.Repeat("r", proto.MaxRunID)),
	"obs", proto.ConsumerName(strings.Repeat("m", 100)), "meta.inf.tmp")

// CheckLength refuses a folder of state whose paths would be too long for the operating system. The
// error of the bus would only be that it cannot make a stream.
func CheckLength(dir string) error {
	path := filepath.Join(dir, LongestPath)
	if _, err := os.Stat(path); errors.Is(err, syscall.ENAMETOOLONG) {
		return exit.Usage("choose a shorter path with --state DIR",
			"the state folder %s is too deep: the bus needs paths of %d bytes in it", dir, len(path))
	}
	return nil
}

// closeFolder leaves a folder's permissions to its owner alone.
func closeFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// tryToWrite returns an error if this user cannot make files in a folder.
func tryToWrite(dir string) error {
	file, err := os.CreateTemp(dir, ".promptmill-*")
	if err != nil {
		return err
	}
	return errors.Join(file.Close(), os.Remove(file.Name()))
}

// stateNames matches the names of promptmill's files in a state folder.
var stateNames = regexp.MustCompile(`^(identity\.pem.*|api-keys\.json.*|api-ca\.pem.*|` +
	`join-(strings|seen)\.json.*|(page|webhook)-secret.*|certificate\.pem|history\.jsonl|outputs|` +
	`servers\.json.*|serve|worker-.+|submit-\d+|\.promptmill-doctor-\d+|.+-[0-9a-f]{8})$`)

// holdsOnlyState reports whether all that a folder holds is promptmill's.
func holdsOnlyState(state string) bool {
	entries, err := os.ReadDir(state)
	return err == nil && !slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return !stateNames.MatchString(e.Name())
	})
}

// lockFile is the file in a folder of state that has its lock.
const lockFile = "lock"

// ErrLocked is returned when another process has the lock of a folder.
var ErrLocked = errors.New("locked")

// Lock makes a folder in a state folder and takes its lock. The lock ends when the file is closed,
// or with the process. The error wraps [ErrLocked] if another process has it.
func Lock(state, dir string) (*os.File, error) {
	if err := CheckLength(dir); err != nil {
		return nil, err
	}

	for {
		if err := Make(state, dir); err != nil {
			return nil, err
		}

		path := filepath.Join(dir, lockFile)
		file, err := atomicfile.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock the state folder: %w", err)
		}

		err = atomicfile.TryLock(file)
		if errors.Is(err, atomicfile.ErrLocked) {
			pid, _ := io.ReadAll(file)
			file.Close()
			return nil, fmt.Errorf("%w by process %s", ErrLocked, cmp.Or(string(pid), "unknown"))
		}
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("lock the state folder: %w", err)
		}

		mine, err := file.Stat()
		there, gone := os.Stat(path)
		if err != nil || gone != nil || !os.SameFile(mine, there) {
			file.Close()
			continue // the process that had the lock has just removed the folder
		}

		if file.Truncate(0) == nil {
			fmt.Fprint(file, os.Getpid()) // for the message above alone: a full disk does not matter
		}

		return file, nil
	}
}

// Clear removes the files in a folder of state, except its lock, which the caller holds, and the
// files to keep.
func Clear(dir string, keep []string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); e.Name() != lockFile && !slices.Contains(keep, path) {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

// RemoveEmpty removes a folder of state whose lock the caller holds, if only the lock lies in it.
func RemoveEmpty(dir string) {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) == 1 && entries[0].Name() == lockFile {
		os.RemoveAll(dir)
	}
}

// Default returns the state folder by the XDG base directory specification, and on Windows the user's folder for local
// data of programs.
func Default(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "promptmill"), nil
	}

	if dir := getenv("LOCALAPPDATA"); runtime.GOOS == "windows" && filepath.IsAbs(dir) {
		return filepath.Join(dir, "promptmill"), nil // Windows closes it to other users
	}

	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "promptmill"), nil
	}

	return "", NoHomeError()
}

// NoHomeError returns the error of a command that needs state and has no folder for it.
func NoHomeError() error {
	return exit.Usage("give --state DIR", "there is no home folder to keep state in")
}
