package http1

// readSocket reads nothing: the sockets of Go are blocking ones on Windows.
func readSocket(uintptr, []byte, bool) (int, error) { return 0, errWouldWait }
