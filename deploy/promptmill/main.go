// Command promptmill runs files of prompts through language models that people host
// themselves.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(run(context.Background(), environment{
		args: os.Args, getenv: os.Getenv, signals: signals, exit: os.Exit,
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
	}))
}

// environment is what the program gets from the operating system.
type environment struct {
	args    []string
	getenv  func(string) string
	signals <-chan os.Signal
	exit    func(int)
	stdin   io.Reader
	stdout  io.Writer
	stderr  *os.File
}
