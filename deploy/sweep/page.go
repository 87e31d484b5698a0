package sweep

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/trial"
)

// writePage writes the files of the trial as it is now. done is set once nothing is left to do.
func (s *sweeper) writePage(done bool) (*trial.Result, error) {
	if err := s.compareAnswers(); err != nil {
		return nil, err
	}

	r := trial.Evaluate(s.describe(done), trial.Options{
		Goal:      s.cfg.Goal,
		Prices:    s.cfg.Report.Prices,
		Estimates: s.cfg.Report.Estimates,
		Command:   s.cfg.RealRun,
		Agreement: s.compared,
	})

	return r, r.WriteFiles(s.cfg.Output)
}

// describe returns the trial as it is now.
func (s *sweeper) describe(done bool) trial.Trial {
	r := s.record
	t := trial.Trial{
		Name:      filepath.Base(s.cfg.Output),
		CreatedAt: r.CreatedAt,
		UpdatedAt: time.Now().UTC(),
		Done:      done,
		Precision: s.cfg.Precision,
		Budget:    s.cfg.Budget,
		Input: trial.Input{
			Requests: r.Sample.Of,
			Sample:   r.Sample.Requests,
			SHA256:   r.SampleSHA256,
		},
		Variants: r.all(),
		Beside:   s.cfg.Beside,
	}

	for _, f := range r.Files {
		t.Input.Files = append(t.Input.Files, f.Path)
	}

	if tuner, ok := s.cfg.Strategy.(Tuner); ok {
		t.Tuning = tuner.Tuning(r.ended())
	}

	t.SideBySide = slices.ContainsFunc(t.Variants, func(v trial.Variant) bool { return len(v.Rounds) > 0 })

	return t
}
