//go:build !linux

package main

// maxrssUnit is the system's unit of a process's peak memory, in bytes.
const maxrssUnit = 1
