package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// A NATS server starts without the streams that it cannot read, and says so in its log
// alone. A bus of ours does not start then: what it does not know, its runs would lose.

// storeHint says how to fix a store that cannot be read.
const storeHint = "nothing was changed: give this user the right to read and write all of it, mount its disk, or let more files be open (ulimit -n); what is damaged can be moved away, and is run again from the output's journal"

// errStore is a failure of a store at the start of a bus.
func errStore(store string, err error) error {
	return exit.Unreachable(fmt.Errorf("the bus's store %s cannot be used: %w", store, err), storeHint)
}

// streamsFolder is where a store has its streams, a folder for each.
func streamsFolder(store string) string {
	return filepath.Join(store, "jetstream", proto.OwnerAccount, "streams")
}

// storedStreams looks through a store, and returns the names of the streams in it. It
// fails where this user may not read or write, and where a file stands for a folder.
func storedStreams(store string) (names []string, err error) {
	top := streamsFolder(store)
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
			return readable(path, d)
		}

		if stream && strings.HasPrefix(d.Name(), ".") { // on its way out
			return fs.SkipDir
		}

		if stream {
			names = append(names, d.Name())
		}

		if err := writable(path); err != nil {
			return err
		}

		return nil
	})
	if err != nil {
		return nil, errStore(store, err)
	}

	return names, nil
}

// readable opens a file as the server would.
func readable(path string, d fs.DirEntry) error {
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

// recoverStreams sees to it that the bus has all streams that its store has. One whose
// description is damaged is described again, and has its messages then.
func (b *embeddedBus) recoverStreams(ctx context.Context, names []string, said *serverWords, log zerolog.Logger) error {
	for _, name := range names {
		_, err := b.js.Stream(ctx, name)
		if err == nil {
			continue
		}

		why := said.about(name)
		cfg, ours := bus.StreamConfigByName(name, b.limits)
		if ours && errors.Is(err, jetstream.ErrStreamNotFound) && damaged(why) {
			if _, err = b.js.CreateStream(ctx, cfg); err == nil {
				log.Warn().Str("stream", name).Str("cause", why).
					Msg("the description of a stream is damaged; made it again")
				continue
			}
		}

		if why != "" {
			err = errors.New(why)
		}

		return errStore(b.dir, fmt.Errorf("stream %s: %w", name, err))
	}

	return nil
}

// damaged reports whether a server says that the description of a stream is. It can be
// made again; what merely cannot be read now must not be.
func damaged(why string) bool {
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

// serverWords are what a server has said while it started.
type serverWords struct {
	mu    sync.Mutex
	list  []string
	fatal chan string // why it gave up
}

// mostWords bounds what is kept.
const mostWords = 1000

func newServerWords() *serverWords { return &serverWords{fatal: make(chan string, 1)} }

func (w *serverWords) add(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) < mostWords {
		w.list = append(w.list, strings.TrimSpace(text))
	}
}

// about is the first warning that names a stream, or empty.
func (w *serverWords) about(stream string) string {
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, text := range w.list {
		if strings.Contains(text, stream) {
			return text
		}
	}

	return ""
}

// gaveUp notes why the server gave up.
func (w *serverWords) gaveUp(text string) {
	select {
	case w.fatal <- text:
	default:
	}
}
