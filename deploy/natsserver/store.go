package natsserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// A NATS server starts without the streams that it cannot read, and only logs that. A bus of ours
// does not start then: its runs would lose the unread streams.

// storeHint is the hint for a store that cannot be read.
const storeHint = "nothing was changed: give this user the right to read and write all of it, mount its disk, or raise the limit of open files (ulimit -n); damaged files can be moved away, and their requests run again from the output's journal"

// storeError returns the error of a store that keeps the server from starting.
func storeError(store string, err error) error {
	return exit.Unreachable(fmt.Errorf("the bus's store %s cannot be used: %w", store, err), storeHint)
}

// StreamsFolder returns the folder of a store that has a folder for each stream.
func StreamsFolder(store string) string {
	return filepath.Join(store, "jetstream", proto.OwnerAccount, "streams")
}

// findStreams returns the names of the streams in a store. It fails if this user may not read and
// write all of the store, and if there is a file in place of a folder.
func findStreams(store string) (names []string, err error) {
	top := StreamsFolder(store)
	err = filepath.WalkDir(store, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		inside, err := filepath.Rel(path, top)
		above := err == nil && inside == "." || err == nil && !strings.HasPrefix(inside, "..")
		stream := filepath.Dir(path) == top
		if !d.IsDir() {
			if above || stream {
				return fmt.Errorf("%s is not a folder", path)
			}
			return checkReadable(path, d)
		}

		if stream && strings.HasPrefix(d.Name(), ".") { // being deleted
			return fs.SkipDir
		}

		if stream {
			names = append(names, d.Name())
		}

		if err := checkWritable(path); err != nil {
			return err
		}

		return nil
	})
	if err != nil {
		return nil, storeError(store, err)
	}

	return names, nil
}

// checkReadable opens a file as the server does.
func checkReadable(path string, d fs.DirEntry) error {
	if !d.Type().IsRegular() {
		return nil
	}

	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) { // temporary
		return nil
	}
	if err != nil {
		return err
	}

	return file.Close()
}

// recoverStreams checks that the server has all streams of its store. It creates a stream whose
// description is damaged again, which recovers its messages.
func (b *Server) recoverStreams(
	ctx context.Context, names []string, startup *startupLog, log zerolog.Logger,
) error {
	for _, name := range names {
		_, err := b.JS.Stream(ctx, name)
		if err == nil {
			continue
		}

		why := startup.findAbout(name)
		cfg, ours := bus.StreamConfigByName(name, b.Limits)
		if ours && errors.Is(err, jetstream.ErrStreamNotFound) && isDamaged(why) {
			// A description that is there, and not empty, would be kept with its missing or wrong checksum, and the
			// stream would be lost again at each start.
			err = os.Remove(filepath.Join(StreamsFolder(b.store), name, server.JetStreamMetaFile))
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				_, err = b.JS.CreateStream(ctx, cfg)
			}

			if err == nil {
				log.Warn().Str("stream", name).Str("cause", why).
					Msg("the description of a stream was damaged; created it again")
				continue
			}
		}

		if why != "" {
			err = fmt.Errorf("%s (%w)", why, err)
		}

		return storeError(b.store, fmt.Errorf("stream %s: %w", name, err))
	}

	return nil
}

// isDamaged reports whether a server's warning is about the damaged description of a stream, which
// can be created again. A stream that merely cannot be read now must not be.
func isDamaged(why string) bool {
	for _, text := range []string{
		"Missing stream metafile", "Missing stream checksum", "checksums do not match",
		"Error unmarshalling stream metafile",
	} {
		if strings.Contains(why, text) {
			return true
		}
	}

	return false
}
