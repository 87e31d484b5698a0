package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A state folder that is another user's, such as a volume of Kubernetes, serves as it is: only its owner can close it.
// The secrets in it are closed.
func TestStateFolderOfAnother(t *testing.T) {
	t.Parallel()

	setpriv, err := exec.LookPath("setpriv")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root, and setpriv to take its rights away")
	}

	c := newCommand(t)
	c.state = filepath.Join(c.dir, "volume")
	must(t, os.Mkdir(c.state, 0o700))
	must(t, os.Chmod(c.state, 0o2777)) // as kubelet makes a folder for a user of the pod
	must(t, os.Chown(c.state, 65532, 65532))

	cmd := c.prepare("join", "create", "box7")
	cmd.Path, cmd.Args = setpriv, append([]string{setpriv, "--bounding-set=-fowner", cmd.Path}, cmd.Args[1:]...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	files, err := os.ReadDir(c.state)
	must(t, err)
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the permissions %v", f.Name(), info.Mode())
		}
	}
	if len(files) == 0 {
		t.Error("the folder is empty")
	}
}
