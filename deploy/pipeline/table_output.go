package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/export"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/statedir"
)

// TableOutput names a table of the answers, see package export. A run that has one writes its
// output lines in the order of the input.
type TableOutput struct {
	// Path is the path of the table: the output's, with one of the endings of [export.Formats].
	// Defaults to no table.
	Path string
	// Shards is the number of files of the table, see [export.Config]. Defaults to one.
	Shards int
}

// enabled reports whether there is a table.
func (t TableOutput) enabled() bool { return t.Path != "" }

// paths returns the paths of the files of the table.
func (t TableOutput) paths() []string { return export.Paths(t.Path, t.Shards) }

// FirstName returns the name of the first file of the table, without its folder; empty if there is no table.
func (t TableOutput) FirstName() string {
	if !t.enabled() {
		return ""
	}
	return filepath.Base(t.paths()[0])
}

// format returns the format of the output lines that the table is made from.
func (t TableOutput) format(f output.Format) output.Format {
	f.Ordered = f.Ordered || t.enabled()
	return f
}

// describe names the table for people.
func (t TableOutput) describe() string {
	paths := t.paths()
	if len(paths) == 1 {
		return files.Short(paths[0])
	}
	return fmt.Sprintf("%s and %d more files", files.Short(paths[0]), len(paths)-1)
}

// validate returns an error for a table that cannot be made from an output.
func (t TableOutput) validate(out output.Prefix, f output.Format) error {
	switch {
	case t.Shards < 0 || t.Shards > export.MaxShards:
		return fmt.Errorf("the field Table.Shards is %d, must be from 1 to %d", t.Shards, export.MaxShards)
	case !t.enabled() && t.Shards > 1:
		return fmt.Errorf("the field Table.Shards is %d, and Table.Path is missing", t.Shards)
	case !t.enabled():
		return nil
	case t.Path != string(out)+export.Ending(t.Path) || export.Ending(t.Path) == "":
		return fmt.Errorf("the field Table.Path is %q, must be %q with one of %q", t.Path, out, export.Formats())
	case f.Plain:
		return errors.New("the field Table excludes Format.Plain: such lines do not say which requests they answer")
	}

	return nil
}

// Check refuses a table of which a file is an input, belongs to something else, or cannot be
// written. out is the output of the run, and state the state folder.
func (t TableOutput) Check(out output.Prefix, state string, inputs []string) error {
	_, err := newTableWriter(t, out, state, statedir.ForOutput(state, string(out)), inputs, Hooks{})
	return err
}

// checkOtherShards refuses a table in several files beside the files of one in another number.
// A reader of all of them would have rows twice.
func (t TableOutput) checkOtherShards() error {
	if t.Shards <= 1 {
		return nil
	}

	ending := export.Ending(t.Path)
	folder, err := os.ReadDir(filepath.Dir(t.Path))
	if err != nil {
		return err
	}

	prefix := strings.TrimSuffix(filepath.Base(t.Path), ending) + "-"
	for _, entry := range folder {
		rest, ok := strings.CutPrefix(entry.Name(), prefix)
		if !ok || !strings.HasSuffix(rest, ending) {
			continue
		}

		var part, shards int
		count, err := fmt.Sscanf(strings.TrimSuffix(rest, ending), "%05d-of-%05d", &part, &shards)
		if err != nil || count != 2 || shards == t.Shards {
			continue
		}

		return exit.WithHint(fmt.Errorf("%s is there, a part of a table of %d files, not %d",
			entry.Name(), shards, t.Shards),
			"move all parts of that table away, or choose another output with -o")
	}

	return nil
}
