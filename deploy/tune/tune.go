// Package tune finds the settings of a model server with which it answers most requests per second: it proposes the
// variants of a trial, one after the other, given how those before it did.
//
// It is a coordinate search over a few flags of vLLM, SGLang and llama.cpp's llama-server. The first variant is the
// user's command as it is. Then the flags come in their order, and the values of each are tried together with the best
// settings so far. A value is kept if it is faster beyond doubt and its answers are not worse. At the end, the command
// as it is and the best settings are measured once more, so that neither the choice among many values nor a drift of
// the machine counts as a gain.
package tune

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/sweep"
)

// DefaultName is the default of the name of the variant that is the user's command as it is.
const DefaultName = "as it is"

// again begins the names of the variants that are measured once more.
const again = "again: "

// Search is a [sweep.Strategy] that finds the settings of a model server.
type Search struct {
	base   sweep.Spec
	launch *modelservers.Launch
	flags  []flag
	// compare compares the speeds of two variants.
	compare func(a, b trial.Variant) trial.Difference
}

// New returns a search that begins with a variant. Its command starts the model server, and keeps the flags that it
// has. Context is the number of tokens of the longest request of the job, prompt and answer; 0: unknown.
//
// The error says why no flags can be added to the command, or that it sets all of them already.
func New(base sweep.Spec, context int) (*Search, error) {
	launch, err := modelservers.FindLaunch(base.Command)
	if err != nil {
		return nil, err
	}

	s := &Search{
		base:    base,
		launch:  launch,
		flags:   flagsOf(launch, context),
		compare: trial.CompareSpeeds,
	}
	s.base.Name = cmp.Or(base.Name, DefaultName)
	if len(s.flags) == 0 {
		return nil, fmt.Errorf("it sets all flags of %s that a tuning tries", launch.Program)
	}

	return s, nil
}

// Most returns how many variants there are at most.
func (s *Search) Most() int {
	most := 1 + len(s.confirmations(nil))
	for _, f := range s.flags {
		for _, l := range f.ladders {
			most += len(l)
		}
	}
	return most
}

// Plan describes the search beforehand: the flags with their values, and how long it takes at most, for a budget of
// measuring for each variant.
func (s *Search) Plan(budget time.Duration) string {
	var names []string
	for _, f := range s.flags {
		var values []string
		for _, l := range f.ladders {
			for _, v := range l {
				values = append(values, v.text)
			}
		}
		names = append(names, fmt.Sprintf("%s (%s)", f.name, strings.Join(values, ", ")))
	}

	return fmt.Sprintf("at most %d variants of %s, each with up to %s of measuring besides its start: %s",
		s.Most(), s.launch.Program, describeMinutes(budget), strings.Join(names, ", "))
}

func describeMinutes(d time.Duration) string {
	if minutes := int(d.Round(time.Minute) / time.Minute); minutes > 1 {
		return fmt.Sprintf("%d minutes", minutes)
	}
	return d.String()
}

// Next returns the next variant, or none.
func (s *Search) Next(ended []trial.Variant) []sweep.Spec {
	r := s.replay(ended)
	if r.next == nil {
		return nil
	}
	return []sweep.Spec{*r.next}
}

// choice is a value of a flag.
type choice struct {
	flag  string
	value value
}

// spec returns the variant with some choices.
func (s *Search) spec(choices []choice) sweep.Spec {
	spec := s.base
	if len(choices) == 0 {
		return spec
	}

	spec.Settings = slices.Clone(spec.Settings)
	var names, words []string
	for _, c := range choices {
		spec.Settings = append(spec.Settings, trial.Setting{Name: c.flag, Value: c.value.text})
		names = append(names, c.flag+"="+c.value.text)
		words = append(words, c.value.words...)
	}

	spec.Name = strings.Join(names, " ")
	spec.Command = s.launch.Add(words...)

	return spec
}

// confirmations returns the variants that are measured once more at the end.
func (s *Search) confirmations(choices []choice) []sweep.Spec {
	specs := []sweep.Spec{s.spec(nil), s.spec(choices)}
	for i := range specs {
		specs[i].Name = again + specs[i].Name
		specs[i].Whole = true // the gain is of these two
	}
	return specs
}
