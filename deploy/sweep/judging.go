package sweep

import (
	"context"
	"fmt"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/deploy/files"
)

// judge judges the answers of a variant whose run has ended.
func (s *sweeper) judge(ctx context.Context, v *variant) error {
	if v.Run == nil || v.Meta == "" || v.Run.Manifest == nil {
		return nil
	}

	if s.isJudged(v) {
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

	v.Quality, v.Judged = judged, s.judgement()
	v.VerdictsSHA256, _, err = output.HashFile(cfg.Verdicts)

	return err
}

// isJudged reports whether the answers of a variant were judged in the way that is wanted, and the verdicts on disk are
// of that. They might be those of another variant.
func (s *sweeper) isJudged(v *variant) bool {
	if v.Quality == nil || v.Judged != s.judgement() {
		return false
	}

	sum, _, err := output.HashFile(s.folder.verdicts(v.Slug))

	return err == nil && sum == v.VerdictsSHA256
}

// judgement names the way in which answers are judged.
func (s *sweeper) judgement() string {
	scorer := ""
	if named, ok := s.cfg.Scorer.(fmt.Stringer); ok {
		scorer = named.String()
	}

	return fmt.Sprintf("expect=%s match=%s score=%s", s.cfg.Expect, s.cfg.Match, scorer)
}

// judgeAgain judges the answers of the variants that an earlier process has judged in another way, or whose verdicts
// are not those that it has written.
func (s *sweeper) judgeAgain(ctx context.Context) error {
	for _, v := range s.record.Variants {
		if !v.State.HasEnded() || s.isJudged(v) {
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
