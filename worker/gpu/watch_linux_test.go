package gpu

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
)

// hasEnded reports whether a process is gone, or only waits to be reaped by a parent other than
// this process.
func hasEnded(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return true
	}
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return bytes.HasPrefix(state, []byte("Z")) || bytes.HasPrefix(state, []byte("X"))
}

func TestKillLeavesNoProcess(t *testing.T) {
	t.Parallel()

	path := writeFakeSMI(t, "cat $dir/two.csv; exec sleep 600")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), commandVariable+"="+path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	awaitTrue(t, "not started", func() bool { return len(readStarts(t, path)) == 1 })

	pid := readStarts(t, path)[0]
	if hasEnded(pid) {
		t.Error("it has ended before the kill")
	}

	cmd.Process.Kill()
	cmd.Wait()
	awaitTrue(t, "it outlives the process that started it", func() bool { return hasEnded(pid) })
}

// A terminal sends a Ctrl-C to a whole process group.
func TestRunKeepsCtrlCFromNvidiaSMI(t *testing.T) {
	t.Parallel()

	path := writeFakeSMI(t, "cat $dir/two.csv; exec sleep 600")
	stop := startWatch(t, newWatch(path))
	awaitTrue(t, "not started", func() bool { return len(readStarts(t, path)) == 1 })

	pid, err := strconv.Atoi(readStarts(t, path)[0])
	if err != nil {
		t.Fatal(err)
	}

	group, err := syscall.Getpgid(pid)
	if err != nil {
		t.Fatal(err)
	}
	if group == syscall.Getpgrp() {
		t.Error("nvidia-smi is in the process group of its parent")
	}

	if err := stop(); err != nil {
		t.Error(err)
	}
	awaitTrue(t, "it outlives the watch", func() bool { return hasEnded(strconv.Itoa(pid)) })
}
