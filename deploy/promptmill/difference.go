package main

import (
	"context"
	"fmt"
	"os"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

// difference says in what a run of then is another than one of now with its id: in the
// text of its input, in its settings, or in what these make of it. It is empty if both have
// the same requests. Whatever is taken up again (a run on a bus, a journal, an output) is
// held against what it is taken for.
func difference(then, now proto.Manifest) string {
	if then.Input.SHA256 != now.Input.SHA256 {
		return otherInput(then.Input.SHA256, now.Input.SHA256)
	}

	if text := changed(then.Settings, now.Settings); text != "" {
		return text
	}

	if then.Input.Requests != now.Input.Requests || then.Input.Digest != now.Input.Digest {
		return fmt.Sprintf("made of %d other requests: its digest is %s, and %d requests now have %s",
			then.Input.Requests, then.Input.Digest, now.Input.Requests, now.Input.Digest)
	}

	return ""
}

// checkUnchanged returns an error that wraps proto.ErrInputChanged if an input file is not
// what validation has read. What it cannot know by looking at the files it knows by reading
// them.
func checkUnchanged(ctx context.Context, in proto.Input) error {
	var paths []string
	same := true
	for _, f := range in.Files {
		info, err := os.Stat(f.Path)
		if err != nil {
			return fmt.Errorf("%w: %w", proto.ErrInputChanged, err)
		}
		same = same && producer.IsUnchanged(f, info)
		paths = append(paths, f.Path)
	}

	if same {
		return nil
	}

	return producer.CheckInput(ctx, in, paths)
}
