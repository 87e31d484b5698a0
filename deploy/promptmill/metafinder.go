package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/history"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/proto"
)

// metaFinder finds the metadata of a run by a name on a command line: of the file, of the output
// beside it, or of the run.
type metaFinder struct {
	env environment
	// state is the folder that has the history of this machine.
	state string
	// bus is the bus to search for a run that the history lacks. Nil: no bus is searched.
	bus *busOptions
}

// newMetaFinder returns a finder for a command with the flags of a bus.
func newMetaFinder(env environment, c *cli.Command) (metaFinder, error) {
	state, err := stateOf(env, c)
	return metaFinder{env: env, state: state, bus: new(parseBus(env, c))}, err
}

// open reads the metadata that a name means. The name of a file comes before that of a run.
func (f metaFinder) open(ctx context.Context, name string) (path string, run *metadata.Run, err error) {
	path = name
	out := prefixOf(name)
	switch info, err := os.Stat(name); {
	case files.Exists(out.Meta()):
		path = out.Meta()
	case err == nil && info.IsDir():
		return path, nil, exit.Usage("name the NAME.meta.json in it, or a run", "%s is a folder", name)
	case name != string(out) && files.Exists(out.Journal()):
		return path, nil, unfinishedError(out)
	}

	run, err = metadata.Read(path)
	if err != nil && !files.Exists(path) {
		if path, err = f.findRun(ctx, name); err == nil {
			run, err = metadata.Read(path)
		}
	}
	if errors.Is(err, metadata.ErrFormat) {
		hint := "name a NAME.meta.json, the NAME.jsonl.zst beside it, or a run"
		if made := defaultOutput(name).Meta(); files.Exists(made) {
			hint = "the run of this input has its metadata in " + report.ShellWords(made)
		}
		return path, nil, exit.Usage(hint, "%w", err)
	}

	return path, run, err
}

// prefixOf returns the output that has a file of a name. A name of no such file is its own prefix.
func prefixOf(name string) output.Prefix {
	var none output.Prefix
	for _, suffix := range []string{
		none.Errors(), none.Results(), none.Journal(), none.ReportMarkdown(), none.ReportHTML(),
	} {
		if prefix, ok := strings.CutSuffix(name, suffix); ok {
			return output.Prefix(prefix)
		}
	}

	return output.Prefix(name)
}

// unfinishedError returns the error of an output that has a journal and no metadata.
func unfinishedError(out output.Prefix) error {
	m, err := journal.ReadManifest(out.Journal())
	if err != nil {
		return exit.Usage("name a NAME.meta.json, the NAME.jsonl.zst beside it, or a run",
			"%s: not the metadata of a run", out.Journal())
	}

	return exit.Usage("the same command continues it; its metadata is written at its end",
		"run %s has not ended: %s is its journal", m.DisplayName(), out.Journal())
}

// findRun returns the path of the metadata of the run that a name means: by the history of this
// machine, or else by the bus. It prints the path.
func (f metaFinder) findRun(ctx context.Context, name string) (string, error) {
	known, err := history.Load(f.state)
	if err != nil {
		return "", err
	}

	names := func(e history.Entry) (id, label string) { return e.TestID, e.Label }
	found := proto.FindNamed(known, name, names)
	if run, ok := cutBatchID(name); ok && len(found) == 0 {
		found = proto.FindNamed(known, run, names)
	}
	if len(found) > 0 {
		return f.chooseEntry(found, name)
	}

	isFile := strings.HasSuffix(name, ".json") || strings.HasSuffix(name, output.ResultsSuffix)
	if f.bus != nil && !isFile {
		m, err := f.findOnBus(ctx, name)
		switch {
		case errors.Is(err, busconn.ErrNoBus):
			return "", noRunError(known, name)
		case err != nil:
			return "", err
		case m.Run != "":
			return f.locate(m)
		}
	}

	return "", noMetadataError(known, name)
}

// noRunError returns the error for a name that no run in the history has, where no bus runs.
func noRunError(known []history.Entry, name string) error {
	if err := shortPartError(nameEntries(known), name); err != nil {
		return err
	}

	return exit.Usage(suggestEntry(known, name)+"promptmill history lists the runs",
		"there is no run %s in the history of this machine, and no bus runs here", report.ShellWords(name))
}

// suggestEntry is [suggestRun] for the runs of the history.
func suggestEntry(known []history.Entry, name string) string {
	var names []string
	for _, e := range known {
		names = append(names, e.TestID, e.Label)
	}

	return suggestRun(name, names)
}

// noMetadataError returns the error for a name of neither a file nor a run.
func noMetadataError(known []history.Entry, name string) error {
	if err := shortPartError(nameEntries(known), name); err != nil {
		return err
	}

	absent := "neither " + report.ShellWords(name) + " nor " +
		report.ShellWords(output.Prefix(strings.TrimSuffix(name, output.ResultsSuffix)).Meta())
	if strings.HasSuffix(name, ".json") {
		absent = "no " + report.ShellWords(name)
	}

	return exit.Usage(suggestEntry(known, name)+"promptmill history lists the runs of this machine",
		"there is %s, and no run of that name", absent)
}

// chooseEntry returns the path of the metadata of entries of the history. Those of one run
// differ in the place of the output, and the last one counts.
func (f metaFinder) chooseEntry(found []history.Entry, name string) (string, error) {
	byID := map[string]history.Entry{}
	for _, e := range found {
		byID[e.TestID] = e
	}

	if len(byID) > 1 {
		return "", severalRunsError(nameEntries(found), name)
	}

	e := found[len(found)-1]
	if !files.Exists(e.Meta) {
		return "", exit.Usage("name the file, if it was moved", "the metadata of run %s, %s, is not there any more",
			e.TestID, files.Short(e.Meta))
	}

	f.print(e.TestID, e.Label, e.Meta)

	return e.Meta, nil
}

// nameEntries returns the runs of the history for a list, each once.
func nameEntries(list []history.Entry) (named []namedRun) {
	for i, e := range list {
		if !slices.ContainsFunc(list[i+1:], func(later history.Entry) bool { return later.TestID == e.TestID }) {
			named = append(named, namedRun{e.TestID, e.Label, e.InputName(), e.Status, e.Timestamp})
		}
	}
	return named
}

// findOnBus returns the run that a name means on the named bus, or on those of this machine. It
// returns an empty manifest if there is no such run, and [busconn.ErrNoBus] if there is no bus.
func (f metaFinder) findOnBus(ctx context.Context, name string) (proto.Manifest, error) {
	if !f.bus.External() && len(localbus.List(f.state)) == 0 {
		return proto.Manifest{}, busconn.ErrNoBus
	}

	s, m, err := openRun(ctx, f.env, *f.bus, proto.RoleReader, name)
	if _, unknown := errors.AsType[unknownRun](err); unknown {
		return proto.Manifest{}, nil
	}

	if err != nil {
		return proto.Manifest{}, err
	}

	s.Close()

	return m, nil
}

// locate returns the path of the metadata of a run on a bus, if it is on this machine.
func (f metaFinder) locate(m proto.Manifest) (string, error) {
	host, path, ok := strings.Cut(m.Output, ":")
	meta := output.Prefix(path).Meta()
	switch {
	case !m.State.Ended():
		return "", exit.Usage("promptmill status "+m.Run+" --watch shows when it has ended",
			"run %s is %s, and has its metadata when it has ended", m.DisplayName(), m.State.Word())
	case !ok:
		return "", exit.Usage("", "run %s is %s, and has no output", m.DisplayName(), m.State)
	case host != pipeline.HostName() || !files.Exists(meta):
		return "", exit.Usage("copy it here and name the file", "the metadata of run %s is on %s: %s",
			m.DisplayName(), host, meta)
	}

	f.print(m.Run, m.Label, meta)

	return meta, nil
}

// print prints the run that a name means.
func (f metaFinder) print(run, label, path string) {
	f.env.printf("run %s: %s", proto.Manifest{Run: run, Label: label}.DisplayName(), files.Short(path))
}
