package export

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/producer/table"
)

// CheckReplaced refuses at once to replace a file that is not a table of the same columns. Others are compared when
// the table is written: see [Config.KeepOthers].
func CheckReplaced(ctx context.Context, cfg Config) error {
	cfg, f, err := cfg.withDefaults()
	if err != nil {
		return err
	}

	for _, path := range Paths(cfg.Path, cfg.Shards) {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}

		isOwn := false
		if info.Mode().IsRegular() {
			if isOwn, err = hasColumnsOf(ctx, cfg, f, path); err != nil {
				return err
			}
		}

		if !isOwn {
			return exit.WithHint(fmt.Errorf("%s is there, and is not a table of this run", files.Short(path)),
				otherFileHint)
		}
	}

	return nil
}

// otherFileHint is the hint of a file that is in the place of a table.
const otherFileHint = "move it away or remove it, or choose another table with -o"

// hasColumnsOf reports whether a file has the columns of a table.
func hasColumnsOf(ctx context.Context, cfg Config, f format, path string) (bool, error) {
	r, err := openTable(ctx, path, f)
	if err != nil {
		return false, nil // it is no table at all
	}
	defer r.Close()

	input, answer, err := findColumns(ctx, cfg)
	if err != nil {
		return false, err
	}

	found, want := r.Columns(), append(slices.Clone(input), answer.all...)
	if f.isSparse { // the first row need not have all columns of the input
		found, want = found[max(0, len(found)-len(answer.all)):], answer.all
	}

	return slices.EqualFunc(found, want, func(a, b table.Column) bool { return a.Name == b.Name }), nil
}
