package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// runStateDir is the folder of a run's state: each output has its own, so that runs
// do not share a store, and the same command finds it again, by whatever links it comes
// to the output's folder.
func runStateDir(state, output string) string {
	dir, name := filepath.Split(output)
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		output = filepath.Join(real, name)
	}
	sum := sha256.Sum256([]byte(output))
	return filepath.Join(state, cutBytes(name, maxStateName)+"-"+hex.EncodeToString(sum[:4]))
}

// maxStateName is how many bytes of an output's name go into that of its state folder,
// which may lie on a file system with shorter names.
const maxStateName = 64

// cutBytes is as much of a text as fits into n bytes, in whole characters.
func cutBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// makeState makes a folder in a state folder, and the state folder itself, for this user
// alone: prompts and logs lie there. What others can read of before is closed to them,
// but never a folder that holds more than our state.
func makeState(state, dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = closeFolder(dir)
	}
	if err != nil {
		return exit.WithHint(fmt.Errorf("make the state folder: %w", err), "choose another place with --state DIR")
	}

	if onlyState(state) {
		closeFolder(state) // not if it is another user's: what lies in it is closed anyway
	}

	return nil
}

// longestStore is the longest path in a folder of state: a consumer's file in the bus's
// store, of a run with the longest id and a model with the longest token.
var longestStore = filepath.Join("nats", "jetstream", proto.OwnerAccount, "streams",
	proto.ResultsStream(strings.Repeat("r", proto.MaxRunID)),
	"obs", proto.ConsumerName(strings.Repeat("m", 100)), "meta.inf.tmp")

// checkStateLength refuses a folder of state whose paths would be too long for the
// operating system: the bus would only say that it cannot make a stream.
func checkStateLength(dir string) error {
	path := filepath.Join(dir, longestStore)
	if _, err := os.Stat(path); errors.Is(err, syscall.ENAMETOOLONG) {
		return exit.Usage("choose a shorter path with --state DIR",
			"the state folder %s is too deep: the bus needs paths of %d bytes in it", dir, len(path))
	}
	return nil
}

// closeFolder takes a folder's permissions away from all but its owner.
func closeFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// ourState matches what promptmill makes in a state folder.
var ourState = regexp.MustCompile(`^(identity\.pem.*|certificate\.pem|history\.jsonl|servers\.json.*|serve|worker-.+|submit-\d+|\.promptmill-doctor-\d+|.+-[0-9a-f]{8})$`)

// onlyState reports whether a folder holds nothing that is not ours.
func onlyState(state string) bool {
	entries, err := os.ReadDir(state)
	return err == nil && !slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return !ourState.MatchString(e.Name())
	})
}

// lockFile is the file in a folder of state that carries its lock.
const lockFile = "lock"

// errLocked says that another process has the lock.
var errLocked = errors.New("locked")

// lockState makes a folder in a state folder and takes its lock, which ends with the
// process. Its error wraps errLocked if another process has it.
func lockState(state, dir string) (*os.File, error) {
	if err := checkStateLength(dir); err != nil {
		return nil, err
	}

	for {
		if err := makeState(state, dir); err != nil {
			return nil, err
		}

		path := filepath.Join(dir, lockFile)
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock the state folder: %w", err)
		}

		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			pid, _ := io.ReadAll(file)
			file.Close()
			return nil, fmt.Errorf("%w by process %s", errLocked, cmp.Or(string(pid), "unknown"))
		}
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("lock the state folder: %w", err)
		}

		mine, err := file.Stat()
		there, gone := os.Stat(path)
		if err != nil || gone != nil || !os.SameFile(mine, there) {
			file.Close()
			continue // the one that had it has just removed the folder
		}

		if file.Truncate(0) == nil {
			fmt.Fprint(file, os.Getpid()) // for that message alone: a full disk is no matter
		}

		return file, nil
	}
}

// clearState removes what lies in a folder of state, but not the folder, its lock, which
// is held, and the copy of standard input, if that is among the inputs.
func clearState(dir string, inputs []string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); e.Name() != lockFile && !slices.Contains(inputs, path) {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

// dropState removes a folder of state, whose lock is held, if nothing but the lock lies
// in it.
func dropState(dir string) {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) == 1 && entries[0].Name() == lockFile {
		os.RemoveAll(dir)
	}
}

// spoolFile is the file in a folder of state that has the copy of standard input.
const spoolFile = "input"

// unwrapPath takes the path out of an error that is going to name it anyway.
func unwrapPath(err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// defaultState is where state lives by the XDG base directory specification.
func defaultState(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "promptmill"), nil
	}

	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "promptmill"), nil
	}

	return "", errNoState()
}

// errNoState is the error of a command that needs state and has no place for it.
func errNoState() error {
	if runtime.GOOS == "windows" {
		return exit.Usage("", "promptmill does not run on Windows")
	}
	return exit.Usage("give --state DIR", "there is no home folder to keep state in")
}
