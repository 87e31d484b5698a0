package supervise

import "syscall"

// adopt makes this process inherit the children of its children, as process 1 does.
func adopt() {
	const setChildSubreaper = 36
	syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
}
