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

// injectUnreadableStore starts the bus with too few files that it may open, or with something
// that is no folder in the place of a stream.
func injectUnreadableStore(d *deployment, e event) error {
	p := d.processes[e.target]
	p.kill()
	defer p.start()

	streams := d.listStreams(e.target)
	if d.shape.nodes > 0 || e.seed%2 == 0 || len(streams) == 0 {
		d.limitFiles(e.target, fewFiles[e.seed>>8%uint64(len(fewFiles))])
		return nil
	}

	path := streams[e.seed>>8%uint64(len(streams))]
	d.logf("%s is no folder now", filepath.Base(path))
	d.moveAside(e.target, path)
	if err := os.Rename(path, asidePath(path, d.storePath(e.target))); err != nil {
		return err
	}

	return os.WriteFile(path, []byte("not a folder"), 0o600)
}

// clearUnreadableStore starts it again as it was.
func clearUnreadableStore(d *deployment, e event) error {
	p := d.processes[e.target]
	p.kill()
	defer p.start()

	d.limitFiles(e.target, 0)

	path := d.moveAside(e.target, "")
	if path == "" {
		return nil
	}

	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		d.logf("a new %s has been made", filepath.Base(path))
	}

	if err := os.RemoveAll(path); err != nil {
		return err
	}

	return os.Rename(asidePath(path, d.storePath(e.target)), path)
}

// asidePath returns the temporary place of a stream's folder, on the same disk, outside of any store.
func asidePath(path, store string) string { return store + "." + filepath.Base(path) }

// listStreams are the folders of the streams of a store.
func (d *deployment) listStreams(part string) (paths []string) {
	paths, _ = filepath.Glob(filepath.Join(d.storePath(part), "jetstream", "*", "streams", "*")) // the pattern is good
	slices.Sort(paths)
	return paths
}

// limitFiles sets how many files a part may open from its next start on; 0: the default.
func (d *deployment) limitFiles(part string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[part] = n
}

// moveAside notes which folder of a part is away, and returns the one before.
func (d *deployment) moveAside(part, path string) (before string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, d.aside[part] = d.aside[part], path
	return before
}

// withFileLimit is a command under the limit of its part.
func (d *deployment) withFileLimit(part, path string, args []string) (string, []string) {
	d.mu.Lock()
	n := d.files[part]
	d.mu.Unlock()
	if n == 0 {
		return path, args
	}

	return "/bin/sh", append([]string{"-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, n), path}, args...)
}
