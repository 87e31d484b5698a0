//go:build unix

package notice

import (
	"syscall"
	"testing"
	"time"
)

func TestSignal(t *testing.T) {
	sources, err := Parse([]string{"sigusr2"}, noEnvironment)
	if err != nil {
		t.Fatal(err)
	}

	if err := syscall.Kill(syscall.Getpid(), syscall.SIGUSR2); err != nil { // one that comes early is not lost
		t.Fatal(err)
	}

	w := startWatching(t, time.Minute, sources...)
	w.expect("SIGUSR2", "signal", time.Minute)

	if err := syscall.Kill(syscall.Getpid(), syscall.SIGUSR2); err != nil { // its deadline is no nearer
		t.Fatal(err)
	}
	w.expectNone()
}

// TestPipe: a pipe is a notice; its content is not waited for.
func TestPipe(t *testing.T) {
	source := newQuickFile(t.TempDir() + "/leave")

	if err := syscall.Mkfifo(source.path, 0o600); err != nil {
		t.Fatal(err)
	}

	startWatching(t, time.Minute, source).expect("file:"+source.path, "the file is there", time.Minute)
}
