package main

import "os"

// notifyAsked does nothing: Windows has no signal that asks for the status.
func notifyAsked(chan<- os.Signal) {}
