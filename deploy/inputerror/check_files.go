package inputerror

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// Check refuses files that are not of requests, as they are named on the command line: of JSON lines, or
// with [proto.Settings.Rows] tables with the columns that the templates name. It reads their beginnings,
// and passes over standard input.
func (in Input) Check(ctx context.Context, s proto.Settings) error {
	opener := in.Opener
	if opener == nil {
		opener = inputfile.Local{}
	}

	for i, name := range in.Files {
		if name == "-" {
			continue
		}

		if err := checkFile(ctx, opener, name); err != nil {
			return err
		}

		source := producer.Source{Files: []string{name}, Opener: opener}
		if len(in.Validated) == len(in.Files) {
			source.Validated = in.Validated[i : i+1]
		}

		if err := readFirst(ctx, source, s.Rows); err != nil {
			named := in
			named.Files = []string{name}
			return named.Describe(err)
		}
	}

	return nil
}

// readFirst reads the first request of a file, good or not.
func readFirst(ctx context.Context, source producer.Source, rows *proto.Rows) error {
	r, err := producer.NewReader(ctx, source, proto.Settings{Rows: rows}, nil)
	if err != nil {
		return err
	}
	defer r.Close()

	if _, err = r.Next(); errors.Is(err, io.EOF) {
		return nil
	}

	return err
}

// checkFile refuses an input that is not a file.
func checkFile(ctx context.Context, opener inputfile.Opener, name string) error {
	if objectstore.IsURL(name) {
		_, err := opener.Stat(ctx, name)
		return err
	}

	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missingFile(name)
	case err != nil:
		return exit.Usage("", "input %s: %w", name, files.WithoutPath(err))
	case info.IsDir():
		return exit.Usage("name the files in it", "input %s is a folder", name)
	case info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0:
		return exit.Usage("pipe it in, with - as the input", "input %s is a pipe, and an input is read twice", name)
	case !info.Mode().IsRegular():
		return exit.Usage("name a file of requests, or pipe them in, with - as the input", "input %s is a device", name)
	}

	return nil
}

// missingFile returns the error for an input that is not there.
func missingFile(name string) error {
	if strings.ContainsAny(name, "*?[") {
		return exit.Usage("a shell passes on a pattern that matches no file: name a file that is there",
			"input %s: no file matches", name)
	}
	return exit.Usage("", "input %s: no such file or directory", name)
}
