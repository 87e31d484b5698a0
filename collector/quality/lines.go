package quality

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// readLines calls a function for each line of a file of an output, with the body of its answer. The line is valid until
// the function returns. A file that is not there has no lines.
func readLines(ctx context.Context, path string, each func(l proto.Line, body []byte) error) error {
	file, err := jsonl.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()

	var scan jsonscan.Scanner
	for lines := jsonl.NewReader(file); ctx.Err() == nil; {
		text, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s, line %d: %w", path, lines.Line()+1, err)
		}

		l, body, _, err := proto.ParseLineBody(&scan, text)
		if err == nil {
			err = each(l, body)
		}
		if err != nil {
			return fmt.Errorf("read %s, line %d: %w", path, lines.Line(), err)
		}
	}

	return context.Cause(ctx)
}
