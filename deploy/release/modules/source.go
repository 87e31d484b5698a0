package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// writtenFiles are the names of the files that a release changes.
var writtenFiles = []string{"go.mod", "go.sum", "go.work", "go.work.sum"}

// checkSource refuses a repository whose commit will not have the files that are hashed, and a version that is tagged:
// Go keeps the checksums that a version once had, and installs no other content.
func checkSource(root, version string) error {
	changed, err := runGit(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
	if err != nil {
		return err
	}

	for entry := range strings.SplitSeq(changed, "\x00") {
		if len(entry) < len("?? ") {
			continue
		}
		name := entry[len("?? "):]
		if isHashed(name) && !slices.Contains(writtenFiles, path.Base(name)) {
			return fmt.Errorf("%s is not committed, and its content would be in the checksums: commit it, or remove it", name)
		}
	}

	for _, dir := range releasedModules {
		tag := dir + "/" + version
		found, err := runGit(root, "tag", "--list", tag)
		if err != nil {
			return err
		}
		if found != "" {
			return fmt.Errorf("there is a tag %s already, and a version has one content: name the next version", tag)
		}
	}

	return nil
}

// isHashed reports whether a file is in a module of a release. The licence is in all of them.
func isHashed(name string) bool {
	dir, _, _ := strings.Cut(name, "/")

	return name == "LICENSE" || slices.Contains(releasedModules, dir) && !strings.HasPrefix(name, "deploy/release/")
}

// runGit runs git in a folder of the repository and returns its output.
func runGit(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}

	return string(out), nil
}
