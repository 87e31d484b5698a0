package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/export"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/upload"
)

// remoteResults are temporary copies of the results and tables that the arguments of a command name by
// their URLs. What the command prints about a copy names its URL.
type remoteResults struct {
	// dir has the copies. Empty: there are none.
	dir string
	// names are the paths of the copies, longer ones before their folders.
	names []copyName
}

// copyName is the path of a copy, and the URL that it is a copy of.
type copyName struct{ path, url string }

// close removes the copies.
func (r *remoteResults) close() {
	if r.dir != "" {
		os.RemoveAll(r.dir)
	}
}

// copyResults copies the output at a URL, and returns the path of the copy. It returns any other
// argument as it is.
func (r *remoteResults) copyResults(ctx context.Context, places *objectstore.Client, address string) (string, error) {
	if !objectstore.IsURL(address) {
		return address, nil
	}

	bucket, key, err := places.OpenBucket(ctx, address)
	if err != nil {
		return "", exit.Usage("download it, with the files beside it",
			"%s: only results at s3:// and gs:// are read", objectstore.Redact(address))
	}

	dir, err := r.addFolder(address)
	if err != nil {
		return "", err
	}

	name := path.Base(address)
	// The table of several files is named by one of them.
	table, shards := export.ParsePath(name)
	cfg := upload.Config{Store: bucket}
	ending := export.Ending(table)
	if ending != "" {
		cfg.Tables = export.Paths(filepath.Join(dir, table), shards)
	} else {
		ending = output.ResultsSuffix
	}

	base := strings.TrimSuffix(table, ending)
	cfg.Key = strings.TrimSuffix(key, name) + base
	cfg.URL = strings.TrimSuffix(address, name) + base
	cfg.Local = output.Prefix(filepath.Join(dir, base))
	r.names = slices.Insert(r.names, 0, copyName{cfg.Local.Journal(), cfg.URL + ".part/"})

	return filepath.Join(dir, name), upload.Download(ctx, cfg)
}

// addFolder makes the folder of the copy of a URL.
func (r *remoteResults) addFolder(address string) (dir string, err error) {
	if r.dir == "" {
		if r.dir, err = os.MkdirTemp("", "promptmill-"); err != nil {
			return "", fmt.Errorf("make a folder for %s: %w", address, err)
		}
	}

	dir = filepath.Join(r.dir, strconv.Itoa(len(r.names)))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a folder for %s: %w", address, err)
	}

	r.names = append(r.names, copyName{dir, strings.TrimSuffix(address, "/"+path.Base(address))})

	return dir, nil
}

// placeTable returns the path of a table on this machine that is moved to a URL.
func (r *remoteResults) placeTable(
	ctx context.Context, places *objectstore.Client, address string, shards int,
) (local string, target *upload.Target, err error) {
	bucket, key, err := places.OpenBucket(ctx, address)
	if err != nil {
		return "", nil, err
	}

	dir, err := r.addFolder(address)
	if err != nil {
		return "", nil, err
	}

	local = filepath.Join(dir, path.Base(address))
	ending := export.Ending(local)

	return local, upload.New(upload.Config{
		Store:  bucket,
		URL:    strings.TrimSuffix(address, ending),
		Key:    strings.TrimSuffix(key, ending),
		Local:  output.Prefix(strings.TrimSuffix(local, ending)),
		Tables: export.Paths(local, shards),
	}), nil
}

// rename returns a text with the URLs of the copies in place of their paths.
func (r *remoteResults) rename(text string) string {
	for _, pair := range r.names {
		text = strings.ReplaceAll(text, pair.path, pair.url)
		text = strings.ReplaceAll(text, files.Short(pair.path), pair.url)
	}

	return text
}

// renamingWriter writes texts with the URLs of the copies. Each Write has whole names.
type renamingWriter struct {
	io.Writer
	copies *remoteResults
}

// Write implements io.Writer.
func (w renamingWriter) Write(text []byte) (int, error) {
	if _, err := io.WriteString(w.Writer, w.copies.rename(string(text))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// renamedError is an error whose text names URLs.
type renamedError struct {
	error
	text string
}

// Error implements error.
func (e *renamedError) Error() string { return e.text }

// Unwrap returns the error.
func (e *renamedError) Unwrap() error { return e.error }

// describeError returns an error whose text and hint name URLs.
func (r *remoteResults) describeError(err error) error {
	if err == nil || len(r.names) == 0 || errors.Is(err, context.Canceled) {
		return err
	}

	text, hint := r.rename(err.Error()), r.rename(exit.Hint(err))
	if text == err.Error() && hint == exit.Hint(err) {
		return err
	}

	return exit.WithHint(&renamedError{error: err, text: text}, hint)
}
