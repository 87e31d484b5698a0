package inputerror

import (
	"strings"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/proto"
)

// hintForOutput returns the way from a file that a run has written to the requests of that run.
func hintForOutput(file string) hint {
	for _, suffix := range []string{
		".errors" + output.ResultsSuffix, output.ResultsSuffix, output.JournalSuffix, ".meta.json",
	} {
		name, ok := strings.CutSuffix(file, suffix)
		if !ok {
			continue
		}

		out := output.Prefix(name)
		if m, ok := readManifest(out); ok && len(m.Input.Files) > 0 {
			return hintForRun(out, m)
		}
	}

	return hint{text: noInputHint}
}

// noInputHint is the hint where the input of a run is not known.
const noInputHint = "give the input of that run; promptmill run INPUT --retry runs its failed requests again"

// hintForRun names the input of a run, and the command that runs its failed requests again.
func hintForRun(out output.Prefix, m proto.Manifest) hint {
	var inputs []string
	for _, f := range m.Input.Files {
		if !files.Exists(f.Path) { // standard input, or files of another machine
			return hint{text: noInputHint}
		}
		inputs = append(inputs, files.Short(f.Path))
	}

	text := "give the input of that run, " + strings.Join(inputs, ", ")
	if m.Counts.Failed == 0 {
		return hint{text: text}
	}

	args := append([]string{"promptmill", "run"}, inputs...)
	args = append(args, "-o", files.Short(out.Results()), "--retry")

	return hint{text: text + "; to run its failed requests again: ", command: report.ShellWords(args...)}
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
