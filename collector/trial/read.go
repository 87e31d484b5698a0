package trial

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/quality"
)

// ErrFormat is wrapped by the errors of [ReadVariants] that are about the contents of a file.
var ErrFormat = errors.New("neither the result of a trial nor the metadata of a run")

const (
	// mostBytes is the largest file that is read: a variant has at most some 300 KB.
	mostBytes = 256 << 20
	// mostVariants is the most variants of a trial that is read.
	mostVariants = 1000
	// longestName is the longest name of a variant that is read, in bytes.
	longestName = 1000
)

// ReadVariants reads the variants of another trial (NAME.trial.json), or one run (NAME.meta.json) as a variant, to put
// them beside those of a trial. The file's name stands behind the names of the variants. Those that were put beside
// themselves are left out. Errors about the contents wrap [ErrFormat].
func ReadVariants(path string) ([]Variant, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > mostBytes {
		return nil, fmt.Errorf("%s: %w: it has more than %d MiB", path, ErrFormat, mostBytes>>20)
	}

	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}

	list, err := parseVariants(text, filepath.Base(path))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}

	return list, nil
}

// storedRow is a row whose metadata is still to be checked.
type storedRow struct {
	Variant
	Beside   bool            `json:"beside"`
	Metadata json.RawMessage `json:"metadata"`
}

// parseVariants reads variants from the contents of a file.
func parseVariants(text []byte, file string) ([]Variant, error) {
	var has struct {
		SchemaVersion int          `json:"schema_version"`
		Variants      *[]storedRow `json:"variants"`
	}
	switch err := json.Unmarshal(text, &has); {
	case err != nil:
		return nil, describeDecodeError(text, err)
	case has.Variants == nil:
		return parseRun(text, file)
	case has.SchemaVersion < 1 || has.SchemaVersion > Version:
		return nil, fmt.Errorf("%w that this program can read: schema_version %d, it knows %d", ErrFormat, has.SchemaVersion,
			Version)
	case len(*has.Variants) > mostVariants:
		return nil, fmt.Errorf("%w: it has %d variants, at most %d are read", ErrFormat, len(*has.Variants), mostVariants)
	}

	from := strings.TrimSuffix(file, JSONSuffix)
	var list []Variant
	for i, row := range *has.Variants {
		if row.Beside {
			continue
		}

		v, err := row.check()
		if err != nil {
			return nil, fmt.Errorf("%w: variant %d: %w", ErrFormat, i+1, err)
		}

		v.Name = fmt.Sprintf("%s (%s)", v.Name, from)
		list = append(list, v)
	}

	if len(list) == 0 {
		return nil, fmt.Errorf("%w: it has no variants of its own", ErrFormat)
	}

	return list, nil
}

// parseRun makes a variant of the metadata of a run.
func parseRun(text []byte, file string) ([]Variant, error) {
	run, err := metadata.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}

	from := cmp.Or(run.Label, run.TestID, strings.TrimSuffix(file, ".meta.json"))
	name := cmp.Or(run.Model, from)
	if name != from {
		name = fmt.Sprintf("%s (%s)", name, from)
	}

	state := Measured
	if run.Results.SuccessCount == 0 {
		state = Failed
	}

	return []Variant{{
		Name:      name,
		Model:     run.Model,
		State:     state,
		StartedAt: run.Timestamp,
		Run:       run,
	}}, nil
}

// check returns the variant of a row from a file, or what is wrong with it.
func (s storedRow) check() (Variant, error) {
	v := s.Variant
	if err := v.Check(); err != nil {
		return v, err
	}

	if len(s.Metadata) == 0 || string(s.Metadata) == "null" {
		return v, nil
	}

	run, err := metadata.Parse(s.Metadata)
	if err != nil {
		return v, err
	}
	v.Run = run

	return v, nil
}

// Check returns what is wrong with a variant that was read from a file. It does not look at Run.
func (v Variant) Check() error {
	switch {
	case v.Name == "" || len(v.Name) > longestName:
		return fmt.Errorf("its name has %d bytes, not 1 to %d", len(v.Name), longestName)
	case v.State != Waiting && v.State != Running && !isEnd(v.State):
		return fmt.Errorf("%q is no state of a variant", v.State)
	case v.PricePerHour != nil && !(*v.PricePerHour >= 0 && *v.PricePerHour <= 1e9):
		return fmt.Errorf("its price_per_hour %v is not between 0 and a billion", *v.PricePerHour)
	}

	for i, r := range v.Rounds {
		if r.Number < 1 || r.To.Before(r.From) || i > 0 && r.Number <= v.Rounds[i-1].Number {
			return errors.New("its rounds are not in order")
		}
	}

	return checkQuality(v.Quality)
}

func isEnd(s State) bool { return s == Measured || s == Beaten || s == Failed || s == Skipped }

// checkQuality checks a quality from a file.
func checkQuality(q *quality.Quality) error {
	if q == nil {
		return nil
	}

	for name, s := range map[string]*quality.Share{
		"schema":         q.Schema,
		"schema_at_once": q.SchemaAtOnce,
		"expected":       q.Expected,
	} {
		if s != nil && (s.Count < 0 || s.Of < s.Count || !isInterval(s.Low, s.Share, s.High)) {
			return fmt.Errorf("the share %q of its quality is not one: 0 <= low <= share <= high <= 1 does not hold", name)
		}
	}

	if s := q.Score; s != nil && (s.Of < 0 || !isInterval(s.Low, s.Mean, s.High)) {
		return errors.New("the score of its quality is not one: 0 <= low <= mean <= high <= 1 does not hold")
	}
	if q.Requests < 0 || q.Empty < 0 || !(q.Characters >= 0 && q.Characters < math.MaxInt32) {
		return errors.New("a count of its quality is below zero or too large")
	}

	return nil
}

func isInterval(low, middle, high float64) bool {
	return 0 <= low && low <= middle && middle <= high && high <= 1
}

// describeDecodeError describes a text that cannot be decoded.
func describeDecodeError(text []byte, err error) error {
	if !json.Valid(text) {
		return fmt.Errorf("%w: it is not one JSON object", ErrFormat)
	}
	if other, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && other.Field != "" {
		return fmt.Errorf("%w: a JSON %s cannot be its %s", ErrFormat, other.Value, other.Field)
	}
	return fmt.Errorf("%w: it is not a JSON object", ErrFormat)
}
