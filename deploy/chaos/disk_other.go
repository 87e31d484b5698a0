//go:build !linux

package main

import (
	"errors"
	"os"
)

const namespaceEnv = "PROMPTMILL_CHAOS_NAMESPACE"

var errLinux = errors.New("only Linux has mount namespaces")

func reexec() (int, error) { return 0, errLinux }

type disk struct{}

func mountDisk(path string) (*disk, error) { return &disk{}, os.MkdirAll(path, 0o755) }

func (d *disk) fill() error     { return skipped(errLinux.Error()) }
func (d *disk) readOnly() error { return skipped(errLinux.Error()) }
func (d *disk) mend() error     { return nil }

func (d *disk) unmount() error { return nil }

func leftBehind(string) []string { return nil }
