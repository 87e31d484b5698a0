package inputerror

import (
	"strings"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/proto"
)

// hintForOutput returns the way from a file that a run has written to the requests of that run.
func hintForOutput(file string) hint {
	const unknown = "give the input of that run; its command with --retry runs the failed requests again"

	m, ok := readManifestOf(file)
	if !ok || len(m.Input.Files) == 0 {
		return hint{text: unknown}
	}

	var inputs []string
	for _, f := range m.Input.Files {
		if !files.Exists(f.Path) { // standard input, or files of another machine
			return hint{text: unknown}
		}
		inputs = append(inputs, files.Short(f.Path))
	}

	text := "give the input of that run, " + strings.Join(inputs, ", ")
	if m.Counts.Failed > 0 {
		text += "; its command with --retry runs the failed requests again"
	}

	return hint{text: text}
}

// isJournal reports whether a file is the journal of a run. It may have no line yet.
func isJournal(file string) bool {
	if !strings.HasSuffix(file, output.JournalSuffix) {
		return false
	}
	_, err := journal.ReadManifest(file)
	return err == nil
}

// readManifestOf reads the manifest of the run that has written a file.
func readManifestOf(file string) (proto.Manifest, bool) {
	for _, suffix := range []string{
		".errors" + output.ResultsSuffix, output.ResultsSuffix, output.JournalSuffix, ".meta.json",
	} {
		if name, ok := strings.CutSuffix(file, suffix); ok {
			return readManifest(output.Prefix(name))
		}
	}

	return proto.Manifest{}, false
}

// readManifest reads the manifest of a run beside its output.
func readManifest(out output.Prefix) (proto.Manifest, bool) {
	if files.Exists(out.Journal()) {
		m, err := journal.ReadManifest(out.Journal())
		return m, err == nil
	}

	meta, err := out.ReadMeta()
	if err != nil {
		return proto.Manifest{}, false
	}

	return *meta.Manifest, true
}
