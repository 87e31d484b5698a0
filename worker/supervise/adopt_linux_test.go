package supervise

import "syscall"

// adoptOrphans makes this process inherit the children of its children, as process 1 does.
func adoptOrphans() {
	const setChildSubreaper = 36
	syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
}
