package page

import (
	"context"
	"time"
)

// viewMaker makes the frames of a bus.
type viewMaker struct {
	*observer
	describer

	files     *runFiles
	states    map[string]*messageMaker // by owner
	details   map[string]*messageMaker // by run
	overviews map[string]*message      // the latest ones, by owner
	latest    map[string]*message      // the latest details, by run
}

// newViewMaker returns a maker of frames.
func newViewMaker(o *observer, d describer) *viewMaker {
	return &viewMaker{
		observer:  o,
		describer: d,
		files:     newRunFiles(d.host),
		states:    map[string]*messageMaker{},
		details:   map[string]*messageMaker{},
		overviews: map[string]*message{},
		latest:    map[string]*message{},
	}
}

// render implements renderer.
func (m *viewMaker) render(ctx context.Context, owners, runs []string) (overviews, details map[string]*message) {
	s := m.look(ctx)

	overviews = map[string]*message{}
	for _, owner := range owners {
		maker := findMaker(m.states, owner, EventState)
		overviews[owner] = maker.make(s.at, m.describeAll(s, owner), m.overviews[owner])
	}

	details = map[string]*message{}
	m.files.keep(runs)
	for _, run := range runs {
		d, known := m.describeDetail(ctx, s, run)
		if !known {
			details[run] = nil
			continue
		}

		details[run] = findMaker(m.details, run, EventRun).make(s.at, d, m.latest[run])
	}

	m.overviews, m.latest = overviews, details

	return overviews, details
}

// findMaker returns the maker of a name.
func findMaker(makers map[string]*messageMaker, name, event string) *messageMaker {
	if makers[name] == nil {
		makers[name] = newMessageMaker(event)
	}
	return makers[name]
}

// describeDetail returns all that is known of a run, and whether it is on the bus. The time is left out, and so is how
// far the run is, so that the detail changes only with its files: the overview has both.
func (m *viewMaker) describeDetail(ctx context.Context, s sight, run string) (RunDetail, bool) {
	manifest, known := s.runs[run]
	if !known {
		return RunDetail{}, false
	}

	d := RunDetail{
		At:           time.Time{},
		Run:          m.describeRun(s, manifest),
		Source:       SourceBus,
		InputFiles:   []string{},
		InputBytes:   manifest.Input.Bytes,
		Output:       manifest.Output,
		MaxTokens:    manifest.Policy.MaxTokens,
		LastFailures: []Failure{},
		Markers:      []Marker{},
	}

	for _, f := range manifest.Input.Files {
		d.InputFiles = append(d.InputFiles, f.Path)
	}
	for _, t := range manifest.Policy.FailIf {
		d.FailIf = append(d.FailIf, t.String())
	}

	m.files.addTo(ctx, &d, manifest)
	d.Commands = suggestCommands(d)

	return d, true
}
