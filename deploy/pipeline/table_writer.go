package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/export"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

// tableWriter writes the tables of a run: the one of TableOutput, and those that it has written before.
type tableWriter struct {
	TableOutput

	output output.Prefix
	// input returns the input of the run, if it is unchanged.
	input func(context.Context, proto.Manifest) (producer.Source, error)
	// note has the names of the files that are being written.
	note  tableNote
	hooks Hooks
	// own are the files that this run has written before.
	own ownTables
}

// newTableWriter returns the writer of a table, if there is one, and of the run's earlier tables. It refuses a
// table of which a file is an input, belongs to something else, or cannot be written.
func newTableWriter(t TableOutput, out output.Prefix, state, stateDir string, inputs []string, hooks Hooks,
) (*tableWriter, error) {
	w := &tableWriter{
		TableOutput: t,
		output:      out,
		note:        tableNote{state, stateDir},
		hooks:       hooks,
	}
	if !t.enabled() {
		return w, nil
	}

	var err error
	if w.own, err = readOwnTables(out, w.note); err != nil {
		return nil, err
	}

	for _, path := range w.paths() {
		if err := w.checkFile(path, inputs); err != nil {
			return nil, err
		}
	}

	return w, w.checkOtherShards()
}

// checkFile refuses a path that cannot be written.
func (w *tableWriter) checkFile(path string, inputs []string) error {
	target, err := atomicfile.FollowLinks(path)
	if err != nil {
		return exit.WithHint(fmt.Errorf("the table %s cannot be written: %w",
			files.Short(path), files.WithoutPath(err)),
			"choose another output with -o")
	}

	info, err := os.Stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return probeName(path, target)
	}
	if err != nil {
		return err
	}

	for _, input := range inputs {
		if inputInfo, err := os.Stat(input); err == nil && os.SameFile(inputInfo, info) {
			return exit.Usage("choose another output with -o",
				"the input %s is the table %s, which the run would write",
				files.Short(input), files.Short(path))
		}
	}

	if !w.own.contains(path) {
		return exit.WithHint(fmt.Errorf("%s is there, and was not written by this run", files.Short(path)),
			"move it away, or choose another output with -o")
	}

	return w.own.checkUnchanged(path)
}

// probeName makes sure that a file with the longest name that a table needs can be made.
func probeName(path, target string) error {
	file, err := atomicfile.CreateLocked(target+atomicfile.TempSuffix, 0o600)
	if errors.Is(err, atomicfile.ErrLocked) {
		return nil // another process has just made it
	}
	if err != nil {
		return exit.WithHint(fmt.Errorf("the table %s cannot be written: %w",
			files.Short(path), files.WithoutPath(err)),
			"choose another output with -o")
	}

	atomicfile.Discard(file)

	return nil
}

// write writes tables of a run whose output lines are written.
func (w *tableWriter) write(
	ctx context.Context, m proto.Manifest, ordered bool, tables ...TableOutput,
) (all []metadata.TableFile, err error) {
	if len(tables) == 0 {
		return nil, nil
	}

	if err := w.note.write(tables); err != nil {
		return nil, err
	}

	source, err := w.input(ctx, m)
	if err != nil {
		return nil, err
	}

	for _, t := range tables {
		written, err := export.Write(ctx, export.Config{
			CheckInput: func(ctx context.Context) error {
				_, err := w.input(ctx, m)
				return err
			},
			Input:   source,
			Run:     m,
			Output:  w.output,
			Ordered: ordered,
			Path:    t.Path,
			Shards:  t.Shards,
		})
		if _, ok := errors.AsType[*export.MismatchError](err); ok {
			err = exit.WithHint(err, "-o "+files.Short(w.output.Results())+" in place of "+files.Short(t.Path)+
				" gives the answers without a table")
		}
		if err != nil {
			return nil, err
		}

		all = append(all, written...)
	}

	return all, nil
}

// forCollector returns the function that writes the tables of a run when its lines are written in a format, for
// [collector.Config]: its table, and the earlier ones, whose answers are old when requests were run again.
func (w *tableWriter) forCollector(
	m proto.Manifest, f output.Format,
) func(context.Context) ([]metadata.TableFile, error) {
	return func(ctx context.Context) ([]metadata.TableFile, error) {
		tables, changed, err := w.findEarlier()
		if err == nil {
			err = refuseTablesOfPlain(tables, f)
		}
		if err != nil {
			return nil, err
		}

		for _, t := range changed {
			w.hooks.printf("the table %s was changed after the run had written it, and is left with its old answers",
				files.Short(t.Path))
		}

		if w.enabled() {
			for _, path := range w.paths() { // someone can have changed it during the run
				if err := w.own.checkUnchanged(path); err != nil {
					return nil, err
				}
			}
			tables = append(tables, w.TableOutput)
		}

		return w.write(ctx, m, w.format(f).Ordered, tables...)
	}
}

// findEarlier returns the other tables that this run has written, or has begun to write, and those of them that
// someone has changed since. Tables that are not there any more are left out.
func (w *tableWriter) findEarlier() (tables, changed []TableOutput, err error) {
	if w.own, err = readOwnTables(w.output, w.note); err != nil {
		return nil, nil, err
	}

	for _, name := range w.own.names() {
		t, ok := w.tableOf(name)
		if !ok || t.Path == w.Path && t.Shards == max(w.Shards, 1) || slices.Contains(append(tables, changed...), t) {
			continue
		}

		there, isChanged, err := w.own.compareFiles(t)
		switch {
		case err != nil:
			return nil, nil, err
		case isChanged:
			changed = append(changed, t)
		case there:
			tables = append(tables, t)
		}
	}

	return tables, changed, nil
}

// tableOf returns the table of the output that a file belongs to.
func (w *tableWriter) tableOf(name string) (TableOutput, bool) {
	path, shards := filepath.Join(filepath.Dir(string(w.output)), name), 1

	whole := string(w.output) + export.Ending(name)
	if path != whole {
		path, shards = export.ParsePath(path)
	}

	return TableOutput{Path: path, Shards: shards}, export.Ending(name) != "" && path == whole
}

// checkRetry refuses to run requests again in a format that the earlier tables cannot be made from.
func (w *tableWriter) checkRetry(f output.Format) error {
	tables, _, err := w.findEarlier()
	if err != nil {
		return err
	}
	return refuseTablesOfPlain(tables, f)
}

// refuseTablesOfPlain refuses tables of plain lines.
func refuseTablesOfPlain(tables []TableOutput, f output.Format) error {
	if !f.Plain || len(tables) == 0 {
		return nil
	}
	return exit.Usage("leave out --plain, or move the table away",
		"%s is a table of this run, and would keep the old answers: --plain takes out what a table needs",
		tables[0].describe())
}

// complete writes the table of a complete run, if it is missing or not as it was written, and
// adds it to the metadata.
func (w *tableWriter) complete(ctx context.Context, meta *metadata.Run) error {
	if !w.enabled() {
		return nil
	}

	reason, err := w.findReason(meta)
	if err != nil || reason == "" {
		return err
	}

	if meta.Config.Plain {
		return exit.Usage("run the input again without --plain, with another output",
			"there can be no table of %s, which was written with --plain: its lines do not say which requests they answer",
			files.Short(w.output.Results()))
	}

	w.hooks.printf("the run is complete; writing %s, %s", w.describe(), reason)

	tables, err := w.write(ctx, *meta.Manifest, meta.Config.Ordered, w.TableOutput)
	if err != nil {
		return err
	}

	return w.saveTables(meta, tables)
}

// findReason returns the reason why the table of a complete run has to be written, empty if it
// is whole.
func (w *tableWriter) findReason(meta *metadata.Run) (string, error) {
	for _, path := range w.paths() {
		i := slices.IndexFunc(meta.Test.Tables, func(t metadata.TableFile) bool {
			return t.File == filepath.Base(path)
		})
		if i < 0 {
			return "which it does not have yet", nil
		}

		if !files.Exists(path) {
			return "which is missing", nil
		}

		if !w.own.isNoted(path) {
			continue // newTableWriter has compared it
		}

		sum, _, err := output.HashFile(path)
		switch {
		case err != nil:
			return "", err
		case sum != meta.Test.Tables[i].SHA256:
			return "which is not as the run wrote it", nil
		}
	}

	return "", nil
}

// saveTables adds the files of a table to the metadata.
func (w *tableWriter) saveTables(meta *metadata.Run, tables []metadata.TableFile) error {
	for _, t := range tables {
		meta.Test.Tables = slices.DeleteFunc(meta.Test.Tables, func(old metadata.TableFile) bool {
			return old.File == t.File
		})
		meta.Test.Tables = append(meta.Test.Tables, t)
	}

	text, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}

	return files.Write(w.output.Meta(), output.Mode, func(file io.Writer) error {
		_, err := file.Write(append(text, '\n'))
		return err
	})
}
