package page

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/program"
	"github.com/promptmill/promptmill/proto"
)

const (
	// mostPoints is the most intervals of a series on the page: more than a screen has columns would only be bytes.
	mostPoints = 500
	// mostFailures is the most failed requests of a detail.
	mostFailures = 20
)

// runFiles reads the files of the runs that have viewers.
type runFiles struct {
	host string // of this machine
	runs map[string]*runFile
}

// newRunFiles returns a reader of the files of a machine.
func newRunFiles(host string) *runFiles { return &runFiles{host, map[string]*runFile{}} }

// keep closes the files of all runs but some.
func (f *runFiles) keep(runs []string) {
	wanted := map[string]bool{}
	for _, run := range runs {
		wanted[run] = true
	}

	for run, file := range f.runs {
		if !wanted[run] {
			file.journal.Close()
			delete(f.runs, run)
		}
	}
}

// close closes all files.
func (f *runFiles) close() { f.keep(nil) }

// find returns what the files of a run have, which is nil if they are not on this machine. note says why.
func (f *runFiles) find(ctx context.Context, m proto.Manifest) (file *runFile, note string) {
	host, out, ok := splitOutput(m.Output)
	switch {
	case !ok:
		return nil, "No process has collected the run yet."
	case host != f.host:
		return nil, fmt.Sprintf("The files of the run are on %s: charts, latencies and messages of failures are there.", host)
	}

	file = f.runs[m.Run]
	if file == nil || file.out != out {
		if file != nil {
			file.journal.Close()
		}
		file = &runFile{out: out, journal: journal.Follow(out.Journal())}
		f.runs[m.Run] = file
	}

	if err := file.refresh(ctx, m.Run); err != nil {
		return nil, fmt.Sprintf("The files of the run cannot be read: %v.", err)
	}

	return file, ""
}

// runFile is what the files of a run have.
type runFile struct {
	out     output.Prefix
	journal *journal.Follower
	// source is where the fields below are from, and version counts their changes.
	source   string
	version  int
	results  *metadata.Results
	series   *metadata.Series
	workers  []metadata.Worker
	failures []Failure
	// meta is the file of the metadata that was read; nil: another source.
	meta os.FileInfo
}

// refresh reads what has changed: of the journal while there is one, or else of the metadata.
func (f *runFile) refresh(ctx context.Context, run string) error {
	changed, err := f.journal.Refresh()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.refreshMetadata(ctx, run)
	case err != nil:
		return err
	case f.journal.State().Manifest.Run != run:
		return fmt.Errorf("%s is of another run", f.out.Journal())
	case !changed && f.source == SourceJournal:
		return nil
	}

	state := f.journal.State()
	meta := collector.DescribeSoFar(state, state.At)
	f.meta = nil
	f.set(SourceJournal, &meta)

	lines, err := f.journal.FailedLines(mostFailures)
	if err != nil {
		return err
	}
	f.failures = parseFailures(lines)

	return nil
}

// refreshMetadata reads the metadata of an ended run, if it is another file than before.
func (f *runFile) refreshMetadata(ctx context.Context, run string) error {
	info, err := os.Stat(f.out.Meta())
	if err != nil {
		return err
	}
	if f.meta != nil && os.SameFile(info, f.meta) && info.ModTime().Equal(f.meta.ModTime()) {
		return nil
	}

	meta, err := metadata.Read(f.out.Meta())
	if err != nil {
		return err
	}
	if meta.TestID != run {
		return fmt.Errorf("%s is of another run", f.out.Meta())
	}

	f.meta = info
	f.set(SourceMetadata, meta)
	f.failures = parseFailures(readLastFailures(ctx, f.out))

	return nil
}

// set takes the figures of a run.
func (f *runFile) set(source string, meta *metadata.Run) {
	f.source, f.results, f.workers = source, &meta.Results, meta.Workers
	f.series = thinSeries(meta.Series, mostPoints)
	f.version++
}

// addTo adds what the files have at a moment.
func (f *runFile) addTo(d *RunDetail, at time.Time) {
	d.Source, d.Results, d.Series = f.source, f.results, f.series
	if f.source == SourceJournal && d.Run.Progress.Durable >= d.Run.Progress.Done {
		d.Series = extendSeries(f.series, at.Add(-settleTime))
	}

	d.Workers, d.LastFailures = nonNil(f.workers), nonNil(f.failures)

	for _, i := range f.results.InterruptedAt {
		d.Markers = append(d.Markers, Marker{
			Kind: "interruption",
			From: i.From,
			To:   new(i.To),
			Text: "no process collected the run",
		})
	}

	for _, s := range f.results.Stops {
		if !s.At.IsZero() {
			d.Markers = append(d.Markers, Marker{Kind: "stop", From: s.At, Text: "stopped by " + s.Name()})
		}
	}
}

// splitOutput cuts HOST:PATH, the output of a run.
func splitOutput(text string) (host string, out output.Prefix, ok bool) {
	host, path, ok := strings.Cut(text, ":")
	return host, output.Prefix(path), ok
}

// suggestCommands returns what to type for a run.
func suggestCommands(d RunDetail) (list []Command) {
	id := report.ShellWords(d.Run.ID)
	_, out, _ := splitOutput(d.Output)

	if !d.Run.State.Ended() {
		list = append(list,
			Command{"show how far the run is", "promptmill status " + id + " --watch"},
			Command{"print the answers as they come", "promptmill tail " + id})
	}

	if d.Source == SourceMetadata {
		if d.Run.Progress.Failed > 0 {
			list = append(list, Command{"show all failed requests", report.ShellWords("zstd", "-dc", out.Errors())})
		}
		list = append(list, Command{"make the report", "promptmill report " + id})
	}

	for i := range list {
		list[i].Line = program.TypedCommands(list[i].Line)
	}

	return list
}

// thinSeries returns a series of at most most intervals, which are longer where there were more. Counts are added up;
// of requests in flight, limits, memory and the 99th percentile the highest counts, and of the median the one of the
// most requests.
func thinSeries(s *metadata.Series, most int) *metadata.Series {
	n := s.Len()
	if n == 0 {
		return nil
	}

	step := (n + most - 1) / most
	thin := &metadata.Series{
		Start:             s.Start,
		IntervalSeconds:   s.IntervalSeconds * step,
		Requests:          thinColumn(s.Requests, step, addUp),
		Failed:            thinColumn(s.Failed, step, addUp),
		PromptTokens:      thinColumn(s.PromptTokens, step, addUp),
		CompletionTokens:  thinColumn(s.CompletionTokens, step, addUp),
		InFlight:          thinColumn(s.InFlight, step, takeMost),
		Limit:             thinColumn(s.Limit, step, takeMost),
		MemoryUsedBytes:   thinColumn(s.MemoryUsedBytes, step, takeMost),
		LatencyP99Seconds: thinColumn(s.LatencyP99Seconds, step, takeMost),
	}

	busiest := make([]int, 0, len(thin.Requests))
	for i := 0; i < n; i += step {
		best := i
		for j := i; j < min(i+step, n); j++ {
			if s.Requests[j] > s.Requests[best] {
				best = j
			}
		}
		busiest = append(busiest, best)
	}
	for _, i := range busiest {
		if len(s.LatencyP50Seconds) == n {
			thin.LatencyP50Seconds = append(thin.LatencyP50Seconds, s.LatencyP50Seconds[i])
		}
	}

	return thin
}

// settleTime is the time after which no more results of a moment come: workers send them together, every few seconds.
const settleTime = 10 * time.Second

// extendSeries returns a series that goes on to a moment, with no results and no readings. The series of a run that
// stands still ends with its last result: without the time since, its last rates look like those of now.
func extendSeries(s *metadata.Series, to time.Time) *metadata.Series {
	n := s.Len()
	if n == 0 {
		return s
	}

	add := int(to.Sub(s.Start)/time.Second)/s.IntervalSeconds - n
	if add <= 0 {
		return s
	}

	return thinSeries(&metadata.Series{
		Start:             s.Start,
		IntervalSeconds:   s.IntervalSeconds,
		Requests:          extendColumn(s.Requests, add),
		Failed:            extendColumn(s.Failed, add),
		PromptTokens:      extendColumn(s.PromptTokens, add),
		CompletionTokens:  extendColumn(s.CompletionTokens, add),
		InFlight:          extendColumn(s.InFlight, add),
		Limit:             extendColumn(s.Limit, add),
		MemoryUsedBytes:   extendColumn(s.MemoryUsedBytes, add),
		LatencyP50Seconds: extendColumn(s.LatencyP50Seconds, add),
		LatencyP99Seconds: extendColumn(s.LatencyP99Seconds, add),
	}, mostPoints)
}

// extendColumn returns a column with more values: zeros, or no readings. An unknown column stays so.
func extendColumn[T any](column []T, add int) []T {
	if len(column) == 0 {
		return column
	}

	return append(slices.Clip(column), make([]T, add)...)
}

// thinColumn joins each step values of a column.
func thinColumn[T any](column []T, step int, join func([]T) T) (thin []T) {
	for i := 0; i < len(column); i += step {
		thin = append(thin, join(column[i:min(i+step, len(column))]))
	}
	return thin
}

// addUp returns the sum of counts.
func addUp(counts []int64) (sum int64) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// takeMost returns the highest of readings, nil if there is none.
func takeMost[T cmp.Ordered](readings []*T) (most *T) {
	for _, r := range readings {
		most = metadata.Most(most, r)
	}
	return most
}

// detailAge is the most age of a detail, whose figures come with each sync of the journal.
const detailAge = 5 * time.Second
