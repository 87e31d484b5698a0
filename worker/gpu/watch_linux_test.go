package gpu

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
)

// ended reports that a process is gone, or waits for nothing but being reaped by a
// parent that is not ours.
func ended(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return true
	}
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return bytes.HasPrefix(state, []byte("Z")) || bytes.HasPrefix(state, []byte("X"))
}

func TestKillLeavesNoProcess(t *testing.T) {
	t.Parallel()

	path := fake(t, "cat $dir/two.csv; exec sleep 600")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asRun+"="+path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	eventually(t, "not started", func() bool { return len(starts(t, path)) == 1 })

	pid := starts(t, path)[0]
	if ended(pid) {
		t.Error("it has ended before the kill")
	}

	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, "it outlives the process that started it", func() bool { return ended(pid) })
}
