package gpu

import "syscall"

// endWithUs makes the kernel kill a process when the thread that started it ends, as all
// do when this process is killed.
func endWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
