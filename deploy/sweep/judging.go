package sweep

import (
	"context"
	"fmt"

	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/deploy/files"
)

// judge judges the answers of a variant whose run has ended.
func (s *sweeper) judge(ctx context.Context, v *variant) error {
	if v.Run == nil || v.Meta == "" || v.Run.Manifest == nil {
		return nil
	}

	key := s.judgement()
	if v.Quality != nil && v.Judged == key {
		return nil
	}

	cfg := quality.Config{
		Output:   s.folder.output(v.Slug),
		Sample:   s.folder.sample(),
		Match:    s.cfg.Match,
		Scorer:   s.cfg.Scorer,
		Verdicts: s.folder.verdicts(v.Slug),
	}
	if s.cfg.Expect != "" {
		cfg.Expected = s.folder.expected()
	}

	judged, err := quality.Judge(ctx, cfg)
	if err != nil {
		return fmt.Errorf("judge the answers of %s: %w", v.Name, err)
	}

	v.Quality, v.Judged = judged, key

	return nil
}

// judgement names the way in which answers are judged.
func (s *sweeper) judgement() string {
	scorer := ""
	if named, ok := s.cfg.Scorer.(fmt.Stringer); ok {
		scorer = named.String()
	}

	return fmt.Sprintf("expect=%s match=%s score=%s", s.cfg.Expect, s.cfg.Match, scorer)
}

// judgeAgain judges the answers of the variants that an earlier process has judged in another way.
func (s *sweeper) judgeAgain(ctx context.Context) error {
	for _, v := range s.record.Variants {
		if !v.State.HasEnded() || v.Judged == s.judgement() {
			continue
		}
		if err := s.judge(ctx, v); err != nil {
			return err
		}
	}

	return s.record.write(s.folder)
}

// compareAnswers compares the answers of all pairs of variants that were judged. It compares a pair once.
func (s *sweeper) compareAnswers() error {
	for i, a := range s.record.Variants {
		for _, b := range s.record.Variants[:i] {
			pair := [2]string{a.Name, b.Name}
			pathA, pathB := s.folder.verdicts(a.Slug), s.folder.verdicts(b.Slug)
			if _, known := s.compared[pair]; known || a.Quality == nil || b.Quality == nil || !files.Exists(pathA) ||
				!files.Exists(pathB) {
				continue
			}

			compared, err := quality.Compare(pathA, pathB)
			if err != nil {
				return fmt.Errorf("compare the answers of %s and %s: %w", a.Name, b.Name, err)
			}

			s.compared[pair] = compared
		}
	}

	return nil
}
