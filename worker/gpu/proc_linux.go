package gpu

import "syscall"

// dieWithParent makes the kernel kill a process when the thread that started it ends, as all
// threads do when this process is killed. A Ctrl-C at the terminal is for this process, which
// still reads the cards while it finishes its requests: so the other has a process group of its own.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
