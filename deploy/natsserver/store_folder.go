package natsserver

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/proto"
)

// storeFolder is the folder of a server's streams, before the server starts.
type storeFolder struct {
	dir     string
	streams []string // their names
	room    int64    // bytes that the streams may have together
}

// openStore makes the store of a server, or looks at the one that is there.
func openStore(cfg Config) (f storeFolder, err error) {
	f.dir = filepath.Join(cfg.Dir, "nats")
	if err := statedir.Make(cfg.State, f.dir); err != nil {
		return f, err
	}

	if err := moveStore(f.dir); err != nil {
		return f, err
	}

	if f.streams, err = findStreams(f.dir); err != nil {
		return f, err
	}

	f.room, err = availableBytes(f.dir)

	return f, err
}

// moveStore moves the streams of an earlier version to the account that owns them now: the
// server looks for them in a folder with the name of the account.
func moveStore(store string) error {
	from, to := filepath.Join(store, "jetstream", "$G"), filepath.Join(store, "jetstream", proto.OwnerAccount)
	if !files.Exists(from) || files.Exists(to) {
		return nil
	}

	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("take over the bus's store of an earlier version: %w", err)
	}

	return nil
}
