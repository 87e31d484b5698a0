//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyAsked relays the signal that asks for the status.
func notifyAsked(asked chan<- os.Signal) { signal.Notify(asked, syscall.SIGUSR1) }
