package table

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// configOf writes a file and returns the configuration that reads it.
func configOf(t testing.TB, name, text string) Config {
	t.Helper()

	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	return Config{Opener: inputfile.Local{}, File: proto.File{Path: path}}
}

// formatRow returns a row as one line: its number, its line, and its columns with their values as JSON.
func formatRow(row Row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d/%d", row.Number, row.Line)
	for i, v := range row.Values {
		fmt.Fprintf(&b, " %s=%s", row.Columns[i].Name, v.AppendJSON(nil))
	}

	return b.String()
}

// readAll returns the descriptions of all rows and errors of a file, and the positions behind them.
func readAll(t testing.TB, cfg Config) (rows []string, positions []Position) {
	t.Helper()

	r, err := Open(context.Background(), cfg)
	if err != nil {
		return []string{"open: " + describeError(cfg, err)}, nil
	}
	defer r.Close()

	for {
		row, err := r.Next()
		wrong, isRow := errors.AsType[*RowError](err)
		switch {
		case err == nil:
			rows = append(rows, formatRow(row))
		case isRow:
			rows = append(rows, fmt.Sprintf("%d/%d: %s", wrong.Number, wrong.Line, wrong.Message))
		case errors.Is(err, io.EOF):
			return rows, positions
		default:
			return append(rows, "end: "+describeError(cfg, err)), positions
		}
		positions = append(positions, r.Position())
	}
}

// describeError returns the text of an error, without the folder of the file.
func describeError(cfg Config, err error) string {
	return strings.ReplaceAll(err.Error(), filepath.Dir(cfg.File.Path)+"/", "")
}
