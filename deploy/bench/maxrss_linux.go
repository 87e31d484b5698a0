package main

// maxrssUnit is what the system counts a process's peak memory in, in bytes.
const maxrssUnit = 1 << 10
