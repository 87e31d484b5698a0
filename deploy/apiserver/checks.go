package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/deploy/apikey"
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

// checkKeys checks that the API keys can be read. Its error has no path: clients without a key read it.
func checkKeys(keys *apikey.File) httpserver.Check {
	return func(context.Context) error {
		if _, err := keys.Required(); err != nil {
			return errors.New("the API keys cannot be read, so all requests are refused")
		}
		return nil
	}
}

// checkDisk checks that files can be written into a folder.
func checkDisk(dir string) httpserver.Check {
	return func(context.Context) error {
		err := writeProbe(filepath.Join(dir, probeName))
		if err != nil {
			return fmt.Errorf("the files of the batch API cannot be written: %w", faultOf(err))
		}
		return nil
	}
}

// probeName is the name of the file that checkDisk writes and removes. It is the same each time, so a server
// that dies leaves no more than one.
const probeName = ".ready"

// writeProbe writes and removes a file. A full disk still has room for names, so the file has bytes.
func writeProbe(path string) error {
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		os.Remove(path)
		return err
	}
	return os.Remove(path)
}

// faultOf returns the fault of a file in the words of the system.
func faultOf(err error) error {
	if fault, ok := errors.AsType[*os.PathError](err); ok {
		return fault.Err
	}
	return err
}
