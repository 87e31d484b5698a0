package gpu

import "syscall"

// dieWithParent makes the kernel kill a process when the thread that started it ends, as all
// threads do when this process is killed.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
