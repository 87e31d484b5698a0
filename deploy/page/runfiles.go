package page

import (
	"context"
	"strings"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
)

// runFiles reads the files of the runs that somebody looks at.
type runFiles struct {
	host string // of this machine
}

// newRunFiles returns a reader of the files of a machine.
func newRunFiles(host string) *runFiles { return &runFiles{host: host} }

// keep closes the files of all runs but some.
func (f *runFiles) keep(runs []string) {}

// close closes all files.
func (f *runFiles) close() {}

// addTo adds what the files of a run have.
func (f *runFiles) addTo(ctx context.Context, d *RunDetail, m proto.Manifest) {
	d.Note = "This host has no files of the run: charts, latencies and messages of failures are where it is collected."
}

// splitOutput cuts HOST:PATH, the output of a run.
func splitOutput(text string) (host string, out output.Prefix, ok bool) {
	host, path, ok := strings.Cut(text, ":")
	return host, output.Prefix(path), ok
}

// suggestCommands returns what to type for a run.
func suggestCommands(d RunDetail) []Command { return nil }
