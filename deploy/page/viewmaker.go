package page

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// viewMaker makes the frames of a bus.
type viewMaker struct {
	*observer
	describer

	files     *runFiles
	states    *messageMaker
	details   *messageMaker
	overviews map[string]*message    // the latest ones, by owner
	shown     map[string]shownDetail // the latest ones, by run
}

// newViewMaker returns a maker of frames.
func newViewMaker(o *observer, d describer) *viewMaker {
	return &viewMaker{
		observer:  o,
		describer: d,
		files:     newRunFiles(d.host),
		states:    newMessageMaker(EventState),
		details:   newMessageMaker(EventRun),
		overviews: map[string]*message{},
		shown:     map[string]shownDetail{},
	}
}

// render implements renderer.
func (m *viewMaker) render(ctx context.Context, owners, runs []string) (overviews, details map[string]*message) {
	s := m.look(ctx)

	overviews = map[string]*message{}
	for _, owner := range owners {
		overviews[owner] = m.states.make(s.at, m.describeAll(s, owner), m.overviews[owner])
	}
	m.overviews = overviews

	details = map[string]*message{}
	m.keep(runs)
	if s.runs == nil { // the bus has not answered yet: nobody knows which runs there are
		return overviews, details
	}

	for _, run := range runs {
		details[run] = m.renderDetail(ctx, s, run)
	}

	return overviews, details
}

// keep forgets all runs but some.
func (m *viewMaker) keep(runs []string) {
	m.files.keep(runs)
	maps.DeleteFunc(m.shown, func(run string, _ shownDetail) bool { return !slices.Contains(runs, run) })
}

// shownDetail is the latest detail of a run.
type shownDetail struct {
	*message

	// mark is what it depends on, besides how far the run is.
	mark string
	at   time.Time
}

// renderDetail returns the detail of a run, nil if there is no such run. It stays the same while the files do, for a
// few seconds at most: how far the run is stands in the overview, too.
func (m *viewMaker) renderDetail(ctx context.Context, s sight, run string) *message {
	manifest, known := s.runs[run]
	if !known {
		delete(m.shown, run)
		return nil
	}

	file, note := m.files.find(ctx, manifest)
	now := m.describeRun(s, manifest)
	mark := fmt.Sprint(now.State, now.Problem, now.CollectedElsewhere, now.Actions, manifest.Counts, note)
	if file != nil {
		mark += fmt.Sprint(file.source, file.version)
	}

	last := m.shown[run]
	if last.message != nil && last.mark == mark && (now.State.Ended() || s.at.Sub(last.at) < detailAge) {
		return last.message
	}

	d := describeDetail(now, manifest)
	d.Note = note
	if file != nil {
		file.addTo(&d, s.at)
	}
	d.Commands = suggestCommands(d)

	m.shown[run] = shownDetail{m.details.make(s.at, d, last.message), mark, s.at}

	return m.shown[run].message
}

// describeDetail returns what the bus has of a run.
func describeDetail(now Run, m proto.Manifest) RunDetail {
	d := RunDetail{
		Run:          now,
		Source:       SourceBus,
		InputFiles:   []string{},
		InputBytes:   m.Input.Bytes,
		Output:       m.Output,
		MaxTokens:    m.Policy.MaxTokens,
		Workers:      []metadata.Worker{},
		LastFailures: []Failure{},
		Markers:      []Marker{},
	}

	for _, f := range m.Input.Files {
		d.InputFiles = append(d.InputFiles, f.Path)
	}
	for _, t := range m.Policy.FailIf {
		d.FailIf = append(d.FailIf, t.String())
	}

	return d
}
