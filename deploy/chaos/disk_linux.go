package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// diskBytes is the size of a disk. The bus sets aside a part of it for each stream.
const diskBytes = 8 << 30

// disk is a small file system in memory, or a plain folder where no file system can be mounted.
type disk struct {
	path    string
	mounted bool
	skip    skipped // why it is not mounted
}

// mountDisk makes a disk. It needs a mount namespace: see runInNamespace.
func mountDisk(path string) (*disk, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}

	d := &disk{path: path}
	if os.Getenv(namespaceEnv) == "" {
		d.skip = "this process has no mount namespace"
		return d, nil
	}

	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d", diskBytes)); err != nil {
		d.skip = skipped(fmt.Sprintf("mount tmpfs: %v", err))
		return d, nil
	}

	d.mounted = true

	return d, nil
}

func (d *disk) remount(flags uintptr, options string) error {
	if !d.mounted {
		return d.skip
	}
	if err := syscall.Mount("", d.path, "", syscall.MS_REMOUNT|flags, options); err != nil {
		return fmt.Errorf("remount %s %s: %w", d.path, options, err)
	}
	return nil
}

// fillUp leaves no space on the disk.
func (d *disk) fillUp() error {
	var used syscall.Statfs_t
	if err := syscall.Statfs(d.path, &used); err != nil {
		return err
	}

	size := max(1, int64(used.Blocks)-int64(used.Bavail)) *
		int64(used.Bsize) //nolint:unconvert // 0 would mean no bound; it is an int32 on some machines
	// What is written meanwhile does not fit into the size.
	for try := int64(0); ; try++ {
		err := d.remount(0, fmt.Sprintf("size=%d", size+try*(64<<10)))
		if err == nil || try == 100 || !d.mounted {
			return err
		}
	}
}

func (d *disk) makeReadOnly() error { return d.remount(syscall.MS_RDONLY, "") }

// restore makes the disk writable and large again.
func (d *disk) restore() error {
	if !d.mounted {
		return nil
	}
	return d.remount(0, fmt.Sprintf("size=%d", diskBytes))
}

func (d *disk) unmount() error {
	if !d.mounted {
		return nil
	}
	return syscall.Unmount(d.path, 0)
}

// namespaceEnv says that this process has a mount namespace of its own.
const namespaceEnv = "PROMPTMILL_CHAOS_NAMESPACE"

// runInNamespace runs this program again in a mount namespace of its own, which ends with it, and
// hands on the signals that ask for the end. It returns the error of not being allowed to.
func runInNamespace() (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}

	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), namespaceEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr

	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	if err := cmd.Start(); err != nil {
		return 0, err
	}

	ended := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				cmd.Process.Signal(s)
			case <-ended:
				return
			}
		}
	}()

	cmd.Wait()
	close(ended)

	if !cmd.ProcessState.Exited() {
		return 1, nil
	}

	return cmd.ProcessState.ExitCode(), nil
}

// listLeftProcesses lists the processes of a program that still run.
func listLeftProcesses(program string) (pids []string) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}

	for _, e := range entries {
		if exe, err := os.Readlink("/proc/" + e.Name() + "/exe"); err == nil && exe == program {
			pids = append(pids, e.Name())
		}
	}

	return pids
}
