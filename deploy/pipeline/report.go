package pipeline

import (
	"errors"

	"github.com/promptmill/promptmill/collector/history"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/rs/zerolog"
)

// BuildReport makes the report of the run whose metadata is at path. Without a baseline in the
// options it compares the run with the last one of another model on the same input in the
// history, which lies in the state folder.
func BuildReport(o report.Options, state, path string, run *metadata.Run) (*report.Report, error) {
	o.Path = path
	if o.Baseline == nil {
		list, err := history.Load(state)
		if err != nil {
			return nil, err
		}

		for _, e := range history.Baselines(list, run) {
			if baseline, err := metadata.Read(e.Meta); err == nil && baseline.TestID == e.TestID { // else it was moved
				o.BaselinePath, o.Baseline = e.Meta, baseline
				break
			}
		}
	}

	return report.Build(run, o), nil
}

// reporter writes the reports of runs.
type reporter struct {
	options report.Options
	state   string // folder of the history
	log     zerolog.Logger
	unnoted bool // the run is not noted in the history
}

// write writes the report of an ended run beside its metadata, and notes the run in the
// history. The results are complete, so a failure is a warning.
func (r reporter) write(run *metadata.Run, out output.Prefix) {
	made, err := BuildReport(r.options, r.state, out.Meta(), run)
	if err == nil {
		err = errors.Join(files.Write(out.ReportMarkdown(), 0o666, made.Markdown),
			files.Write(out.ReportHTML(), 0o666, made.HTML))
	}
	if err != nil {
		r.log.Warn().Err(err).Msg("failed to write the report; make it with promptmill report")
	}

	if r.unnoted {
		return
	}

	if err := history.Append(r.state, history.Of(out.Meta(), run)); err != nil {
		r.log.Warn().Err(err).Msg("failed to note the run in the history")
	}
}

// writeFor is write for the metadata of an output.
func (r reporter) writeFor(out output.Prefix) {
	run, err := out.ReadMeta()
	if err != nil {
		r.log.Warn().Err(err).Msg("failed to write the report; make it with promptmill report")
		return
	}
	r.write(run, out)
}
