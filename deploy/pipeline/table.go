package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/export"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
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

// tableWriter writes the tables of a run: the one of TableOutput, and those that it has written before.
type tableWriter struct {
	TableOutput

	output output.Prefix
	// input returns the input of the run, if it is unchanged.
	input func(context.Context, proto.Manifest) (producer.Source, error)
	// state and stateDir are the state folder and the folder of the run in it.
	state, stateDir string
	hooks           Hooks
	// sums are the SHA-256 of the files of tables that the metadata of this run have, by their names, and noted
	// are the names of files that it had begun to write when it was killed.
	sums  map[string]string
	noted []string
}

// newTableWriter returns the writer of a table, if there is one, and of the run's earlier tables. It refuses a
// table of which a file is an input, belongs to something else, or cannot be written.
func newTableWriter(t TableOutput, out output.Prefix, state, stateDir string, inputs []string, hooks Hooks,
) (*tableWriter, error) {
	w := &tableWriter{
		TableOutput: t,
		output:      out,
		state:       state,
		stateDir:    stateDir,
		hooks:       hooks,
	}
	if !t.enabled() {
		return w, nil
	}

	if err := w.findOwn(); err != nil {
		return nil, err
	}

	for _, path := range w.paths() {
		if err := w.checkFile(path, inputs); err != nil {
			return nil, err
		}
	}

	return w, w.checkOtherShards()
}

// findOwn finds the files that this run has written before: those of its metadata, and those
// that it had begun to write.
func (w *tableWriter) findOwn() (err error) {
	w.sums = map[string]string{}
	if meta, err := w.output.ReadMeta(); err == nil { // others are reported with the output
		for _, t := range meta.Test.Tables {
			w.sums[t.File] = t.SHA256
		}
	}

	w.noted, err = w.readNote()

	return err
}

// readNote returns the names of files that this run had begun to write when it was killed.
func (w *tableWriter) readNote() ([]string, error) {
	text, err := os.ReadFile(w.notePath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the names of tables: %w", err)
	}

	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' }), nil
}

// notePath returns the path of the file with the names of the table's files, one a line. It is
// there while they are written.
func (w *tableWriter) notePath() string { return filepath.Join(w.stateDir, "table") }

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

	if name := filepath.Base(path); w.sums[name] == "" && !slices.Contains(w.noted, name) {
		return exit.WithHint(fmt.Errorf("%s is there, and was not written by this run", files.Short(path)),
			"move it away, or choose another output with -o")
	}

	return w.checkUnchanged(path)
}

// checkUnchanged refuses to replace a file that someone has changed after this run had written it.
func (w *tableWriter) checkUnchanged(path string) error {
	name := filepath.Base(path)
	if w.sums[name] == "" || slices.Contains(w.noted, name) {
		return nil
	}

	sum, _, err := output.HashFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && sum == w.sums[name] {
		return nil
	}
	if err != nil {
		return err
	}

	return exit.WithHint(fmt.Errorf("%s was changed after this run had written it", files.Short(path)),
		"move it away or remove it, then give the same command again")
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

// checkOtherShards refuses a table in several files beside the files of one in another number.
// A reader of all of them would have rows twice.
func (w *tableWriter) checkOtherShards() error {
	if w.Shards <= 1 {
		return nil
	}

	ending := export.Ending(w.Path)
	folder, err := os.ReadDir(filepath.Dir(w.Path))
	if err != nil {
		return err
	}

	prefix := strings.TrimSuffix(filepath.Base(w.Path), ending) + "-"
	for _, entry := range folder {
		rest, ok := strings.CutPrefix(entry.Name(), prefix)
		if !ok || !strings.HasSuffix(rest, ending) {
			continue
		}

		var part, of int
		n, err := fmt.Sscanf(strings.TrimSuffix(rest, ending), "%05d-of-%05d", &part, &of)
		if err != nil || n != 2 || of == w.Shards {
			continue
		}

		return exit.WithHint(fmt.Errorf("%s is there, a part of a table of %d files, not %d",
			entry.Name(), of, w.Shards),
			"move all parts of that table away, or choose another output with -o")
	}

	return nil
}

// write writes tables of a run whose output lines are written.
func (w *tableWriter) write(
	ctx context.Context, m proto.Manifest, ordered bool, tables ...TableOutput,
) (all []metadata.TableFile, err error) {
	if len(tables) == 0 {
		return nil, nil
	}

	if err := w.note(tables); err != nil {
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
				if err := w.checkUnchanged(path); err != nil {
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
	if err := w.findOwn(); err != nil {
		return nil, nil, err
	}

	for _, name := range append(slices.Sorted(maps.Keys(w.sums)), w.noted...) {
		t, ok := w.tableOf(name)
		if !ok || t.Path == w.Path && t.Shards == max(w.Shards, 1) || slices.Contains(append(tables, changed...), t) {
			continue
		}

		there, isChanged, err := t.compareFiles(w.sums, w.noted)
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

// compareFiles reports whether files of the table are there, and whether one is neither as its sum is, nor was
// about to be written.
func (t TableOutput) compareFiles(sums map[string]string, noted []string) (there, isChanged bool, err error) {
	for _, path := range t.paths() {
		name := filepath.Base(path)

		sum, _, err := output.HashFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return false, false, err
		case sum != sums[name] && !slices.Contains(noted, name):
			return true, true, nil
		}

		there = true
	}

	return there, false, nil
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

// removeNote removes the file with the names of the table's files, when the run has ended.
func (w *tableWriter) removeNote() error {
	err := os.Remove(w.notePath())
	os.Remove(w.stateDir) // if it is empty
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}

	return err
}

// note notes the names of the files of tables before one of them is there.
func (w *tableWriter) note(tables []TableOutput) error {
	if err := statedir.Make(w.state, w.stateDir); err != nil {
		return err
	}

	return files.Write(w.notePath(), 0o600, func(file io.Writer) error {
		for _, t := range tables {
			for _, path := range t.paths() {
				if _, err := fmt.Fprintln(file, filepath.Base(path)); err != nil {
					return err
				}
			}
		}
		return nil
	})
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

// describe names the table for people.
func (t TableOutput) describe() string {
	paths := t.paths()
	if len(paths) == 1 {
		return files.Short(paths[0])
	}
	return fmt.Sprintf("%s and %d more files", files.Short(paths[0]), len(paths)-1)
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

		if !slices.Contains(w.noted, filepath.Base(path)) {
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
