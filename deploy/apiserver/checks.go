package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/httpserver"
)

// checkBus checks that the bus answers.
func checkBus(link *busconn.Connection) httpserver.Check {
	return func(ctx context.Context) error {
		if link.Conn.Status() != nats.CONNECTED {
			return errors.New("the bus is not connected")
		}
		if _, err := link.JS.AccountInfo(ctx); err != nil {
			return errors.New("the bus does not answer")
		}
		return nil
	}
}

// checkDisk checks that files can be written into a folder.
func checkDisk(dir string) httpserver.Check {
	return func(context.Context) error {
		file, err := os.CreateTemp(dir, ".ready-*")
		if err != nil {
			return fmt.Errorf("the folder %s cannot be written: %w", dir, faultOf(err))
		}
		defer os.Remove(file.Name())
		defer file.Close()

		// A full disk still has room for names.
		if _, err := file.Write(make([]byte, 4096)); err != nil {
			return fmt.Errorf("the disk of %s cannot be written: %w", dir, faultOf(err))
		}

		return nil
	}
}

// faultOf returns the fault of a file in the words of the system.
func faultOf(err error) error {
	if fault, ok := errors.AsType[*os.PathError](err); ok {
		return fault.Err
	}
	return err
}
