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
	"runtime"
	"syscall"
)

// runStateDir is the folder of a run's state: each output has its own, so that runs
// do not share a store, and the same command finds it again.
func runStateDir(state, output string) string {
	sum := sha256.Sum256([]byte(output))
	return filepath.Join(state, filepath.Base(output)+"-"+hex.EncodeToString(sum[:4]))
}

// errLocked says that another process has the lock.
var errLocked = errors.New("locked")

// lockState makes the folder and takes its lock, which ends with the process. Its error
// wraps errLocked if another process has it.
func lockState(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, withHint(fmt.Errorf("make the state folder: %w", err), "choose another place with --state DIR")
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
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
	if file.Truncate(0) == nil {
		fmt.Fprint(file, os.Getpid()) // for that message alone: a full disk is no matter
	}
	return file, nil
}

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
	if runtime.GOOS == "windows" {
		return "", usage("", "promptmill does not run on Windows")
	}
	return "", usage("give --state DIR", "there is no home folder to keep state in")
}
