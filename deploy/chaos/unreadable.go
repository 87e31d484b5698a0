package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// A store that cannot be read when the bus is started: nothing of it may be given up.

// fewFiles is as many open files as the bus gets, from far too few to nearly enough.
var fewFiles = []int{12, 24, 40, 80}

// doUnreadable starts the bus with too few files that it may open, or with something that is
// no folder in the place of a stream.
func (f *fleet) doUnreadable(e event) error {
	p := f.processes[e.target]
	p.kill()
	defer p.start()

	streams := f.streamsOf(e.target)
	if f.shape.nodes > 0 || e.dice%2 == 0 || len(streams) == 0 {
		f.limitFiles(e.target, fewFiles[e.dice>>8%uint64(len(fewFiles))])
		return nil
	}

	path := streams[e.dice>>8%uint64(len(streams))]
	f.say("%s is no folder now", filepath.Base(path))
	f.setAside(e.target, path)
	if err := os.Rename(path, asideOf(path, f.store(e.target))); err != nil {
		return err
	}

	return os.WriteFile(path, []byte("not a folder"), 0o600)
}

// undoUnreadable starts it again as it was.
func (f *fleet) undoUnreadable(e event) error {
	p := f.processes[e.target]
	p.kill()
	defer p.start()

	f.limitFiles(e.target, 0)

	path := f.setAside(e.target, "")
	if path == "" {
		return nil
	}

	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		f.say("a new %s has been made", filepath.Base(path))
	}

	if err := os.RemoveAll(path); err != nil {
		return err
	}

	return os.Rename(asideOf(path, f.store(e.target)), path)
}

// asideOf is where a stream's folder is meanwhile: on the same disk, where no store is.
func asideOf(path, store string) string { return store + "." + filepath.Base(path) }

// streamsOf are the folders of the streams of a store.
func (f *fleet) streamsOf(part string) (paths []string) {
	paths, _ = filepath.Glob(filepath.Join(f.store(part), "jetstream", "*", "streams", "*")) // the pattern is good
	slices.Sort(paths)
	return paths
}

// limitFiles sets how many files a part may open in its next lives; 0: as many as usual.
func (f *fleet) limitFiles(part string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[part] = n
}

// setAside notes which folder of a part is away, and returns the one before.
func (f *fleet) setAside(part, path string) (before string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, f.aside[part] = f.aside[part], path
	return before
}

// limited is a command under the limit of its part.
func (f *fleet) limited(part, path string, args []string) (string, []string) {
	f.mu.Lock()
	n := f.files[part]
	f.mu.Unlock()
	if n == 0 {
		return path, args
	}

	return "/bin/sh", append([]string{"-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, n), path}, args...)
}
