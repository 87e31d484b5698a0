package producer

import (
	"context"
	"fmt"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// Source names the files of an input, and opens them.
type Source struct {
	// Files are the paths or URLs of the files. Required.
	Files []string
	// Opener opens the files. Defaults to [inputfile.Local].
	Opener inputfile.Opener
	// ETags are the ETags that the files must still have, by their paths. Defaults to none.
	ETags map[string]string
}

// SourceOf returns the source of the files of a validated input. A file with an ETag must still
// have it.
func SourceOf(in proto.Input, files []string, opener inputfile.Opener) Source {
	s := Source{Files: files, Opener: opener}
	for _, f := range in.Files {
		if f.ETag != "" {
			if s.ETags == nil {
				s.ETags = map[string]string{}
			}
			s.ETags[f.Path] = f.ETag
		}
	}

	return s
}

// opener returns the opener of the files.
func (s Source) opener() inputfile.Opener {
	if s.Opener == nil {
		return inputfile.Local{}
	}
	return s.Opener
}

// file names a file for the opener.
func (s Source) file(path string) proto.File { return proto.File{Path: path, ETag: s.ETags[path]} }

// Open opens one of the files.
func (s Source) Open(ctx context.Context, path string) (inputfile.File, error) {
	return s.opener().Open(ctx, s.file(path))
}

// Describe describes the files as they are now.
func (s Source) Describe(ctx context.Context) ([]proto.File, error) {
	var files []proto.File
	for _, path := range s.Files {
		file, err := s.opener().Stat(ctx, path)
		if err != nil {
			return nil, err
		}

		if etag := s.ETags[path]; etag != "" && etag != file.ETag {
			return nil, fmt.Errorf("%w: %s has another ETag", proto.ErrInputChanged, path)
		}

		files = append(files, file)
	}

	return files, nil
}
