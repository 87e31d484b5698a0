package producer

import (
	"context"
	"fmt"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// Source names the files of an input, and opens them.
type Source struct {
	// Files are the paths or URLs of the files. Required.
	Files []string
	// Opener opens the files. Defaults to [inputfile.Local].
	Opener inputfile.Opener
	// Validated are the files as validation has found them. Each of Files is read like the one in its place: as
	// a table in the same format, with the columns and images of its original folder, and with the same
	// ETag if it has the same path. Defaults to none.
	Validated []proto.File
	// Stored reports that the bus has the files, or will have them. Other machines read them then, so that
	// rows with images that are files are refused. Defaults to false.
	Stored bool
}

// SourceOf returns the source of the files of a validated input, wherever they are now.
func SourceOf(in proto.Input, files []string, opener inputfile.Opener) Source {
	return Source{
		Files:     files,
		Opener:    opener,
		Validated: in.Files,
		Stored:    in.Stored,
	}
}

// opener returns the opener of the files.
func (s Source) opener() inputfile.Opener {
	if s.Opener == nil {
		return inputfile.Local{}
	}
	return s.Opener
}

// validated returns the i-th file as validation has found it; with its path alone if it was not validated.
func (s Source) validated(i int) proto.File {
	if len(s.Validated) == len(s.Files) {
		return s.Validated[i]
	}
	return proto.File{Path: s.Files[i]}
}

// file names the i-th file for the opener.
func (s Source) file(i int) proto.File {
	f := proto.File{Path: s.Files[i]}
	if then := s.validated(i); then.Path == f.Path {
		f.ETag = then.ETag
	}
	return f
}

// Open opens the i-th file.
func (s Source) Open(ctx context.Context, i int) (inputfile.File, error) {
	return s.opener().Open(ctx, s.file(i))
}

// tableConfig says how the i-th file is read as a table.
func (s Source) tableConfig(i int, t proto.Table) table.Config {
	then := s.validated(i)

	return table.Config{
		Opener: s.opener(),
		File:   s.file(i),
		Origin: then.OriginalPath(),
		Table:  then.Table(t),
	}
}

// Describe describes the files as they are now.
func (s Source) Describe(ctx context.Context) ([]proto.File, error) {
	var files []proto.File
	for i, path := range s.Files {
		file, err := s.opener().Stat(ctx, path)
		if err != nil {
			return nil, err
		}

		if etag := s.file(i).ETag; etag != "" && etag != file.ETag {
			return nil, fmt.Errorf("%w: %s has another ETag", proto.ErrInputChanged, path)
		}

		files = append(files, file)
	}

	return files, nil
}
