package sweep

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/producer/sample"
	"github.com/promptmill/promptmill/proto"
)

// folderSuffix ends the name of the folder of a trial.
const folderSuffix = ".trial"

// folder is the folder of a trial: its record, its sample, and the output of each variant.
type folder string

func (f folder) path(name string) string          { return filepath.Join(string(f), name) }
func (f folder) record() string                   { return f.path("trial.json") }
func (f folder) sample() string                   { return f.path("sample.jsonl") }
func (f folder) expected() string                 { return f.path("expected.jsonl") }
func (f folder) output(slug string) output.Prefix { return output.Prefix(f.path(slug)) }
func (f folder) verdicts(slug string) string      { return f.path(slug + ".verdicts") }
func (f folder) serverDir(slug string) string     { return f.path(filepath.Join("servers", slug)) }
func (f folder) serverLog(slug string) string     { return filepath.Join(f.serverDir(slug), logName) }

// Exists reports whether a trial with this Config.Output has begun.
func Exists(output string) bool { return files.Exists(folder(output + folderSuffix).record()) }

// recordFormat is the version of the format of a record.
const recordFormat = 1

// record is the state of a trial on disk: its input, its settings and its variants. It is written before and after each
// step, so that a later process goes on from there.
type record struct {
	Format    int       `json:"format"`
	CreatedAt time.Time `json:"created_at"`

	// Files are the input as it was when the sample was drawn, Size the wanted requests, and Sample what was drawn.
	Files  []proto.File  `json:"files"`
	Size   int           `json:"size"`
	Sample sample.Sample `json:"sample"`
	// SampleSHA256 and ExpectedSHA256 are of the files that were written then.
	SampleSHA256   string `json:"sample_sha256"`
	ExpectedSHA256 string `json:"expected_sha256,omitempty"`

	Settings proto.Settings `json:"settings"`
	Expect   string         `json:"expect,omitempty"`

	// Rounds counts the rounds in which variants have taken turns.
	Rounds int `json:"rounds,omitempty"`

	Variants []*variant `json:"variants"`
}

// variant is a variant and where its files are.
type variant struct {
	trial.Variant

	// Slug begins the names of its files.
	Slug string `json:"slug"`
	// Decided and Why are its end as it was decided while its run was still being ended; empty: not yet.
	Decided trial.State `json:"decided,omitempty"`
	Why     string      `json:"why,omitempty"`
	// Judged names the way in which its answers were judged; empty: they were not.
	Judged string `json:"judged,omitempty"`
	// MetaSHA256 is of its metadata as they were when it ended, and VerdictsSHA256 of its verdicts; empty: it has none.
	MetaSHA256     string `json:"meta_sha256,omitempty"`
	VerdictsSHA256 string `json:"verdicts_sha256,omitempty"`
	// Spec is the variant as it was asked for.
	Spec Spec `json:"spec"`

	number      int       // from 1
	again       bool      // its failed requests are to run again
	describedAt time.Time // when Run was as its journal says
}

// readRecord reads the record of a trial; nil: it has not begun.
func readRecord(f folder) (*record, error) {
	text, err := os.ReadFile(f.record())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, checkFresh(f)
	}
	if err != nil {
		return nil, fmt.Errorf("read the trial: %w", err)
	}

	var r record
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&r); err != nil || r.Format != recordFormat {
		return nil, exit.WithHint(fmt.Errorf("%s is no trial of this version of promptmill", files.Short(f.record())),
			"move the folder away, or choose another name with -o")
	}

	if err := r.check(); err != nil {
		return nil, exit.WithHint(fmt.Errorf("%s: %w", files.Short(f.record()), err),
			"put the file back as it was, or choose another name with -o")
	}

	for i, v := range r.Variants {
		v.number = i + 1
		if err := v.readRun(f, r.SampleSHA256); err != nil {
			return nil, err
		}
		if err := v.checkMeta(f); err != nil {
			return nil, err
		}
	}

	return &r, nil
}

// decisions are the states that a variant has decided to end with; empty: it has not.
var decisions = []trial.State{"", trial.Measured, trial.Beaten, trial.Failed}

// check returns what is wrong with a record from the disk.
func (r *record) check() error {
	names, slugs := map[string]bool{}, map[string]bool{}
	for i, v := range r.Variants {
		if v == nil {
			return fmt.Errorf("variant %d is null", i+1)
		}

		err := v.Check()
		switch {
		case err != nil:
		case names[v.Name]:
			err = errors.New("another one has its name")
		case v.Spec.Name != v.Name:
			err = fmt.Errorf("its spec is of %q", v.Spec.Name)
		case !slugPattern.MatchString(v.Slug):
			err = fmt.Errorf("%q is no name for its files", v.Slug)
		case slugs[v.Slug]:
			err = fmt.Errorf("another one has its files %s", v.Slug)
		case !slices.Contains(decisions, v.Decided):
			err = fmt.Errorf("%q is no decision", v.Decided)
		}
		if err != nil {
			return fmt.Errorf("the variant %q: %w", v.Name, err)
		}

		names[v.Name], slugs[v.Slug] = true, true
	}

	return nil
}

// checkFresh refuses the folder of a new trial if other files are in it.
func checkFresh(f folder) error {
	list, err := os.ReadDir(string(f))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the folder of the trial: %w", err)
	}

	for _, entry := range list {
		if !isOwnFile(entry.Name()) {
			return exit.WithHint(fmt.Errorf("%s is in the folder of the trial, which no trial has written",
				files.Short(f.path(entry.Name()))), "move it away, or choose another name with -o")
		}
	}

	return nil
}

// isOwnFile reports whether a file may be left from a trial that ended before it had a record.
func isOwnFile(name string) bool {
	switch strings.TrimSuffix(name, atomicfile.TempSuffix) {
	case "sample.jsonl", "expected.jsonl", "trial.json":
		return true
	}

	return pipeline.IsStdinCopy(name) || strings.HasPrefix(name, ".promptmill-sample-")
}

// write writes the record.
func (r *record) write(f folder) error {
	err := files.Write(f.record(), 0o666, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	})
	if err != nil {
		return fmt.Errorf("write the trial: %w", err)
	}

	return nil
}

// ended returns the variants that have ended, in order.
func (r *record) ended() (list []trial.Variant) {
	for _, v := range r.Variants {
		if v.State.HasEnded() {
			list = append(list, v.Variant)
		}
	}
	return list
}

// all returns all variants, in order.
func (r *record) all() (list []trial.Variant) {
	for _, v := range r.Variants {
		list = append(list, v.Variant)
	}
	return list
}

// others returns the variants that have begun, but one.
func (r *record) others(than *variant) (list []trial.Variant) {
	for _, v := range r.Variants {
		if v != than && v.Run != nil {
			list = append(list, v.Variant)
		}
	}
	return list
}

// add returns the variant of a spec, which the record may have from an earlier process. One that it has with another
// command or server is refused: its figures would stand for that. Without a run, since its server did not start, it
// begins with the new command.
func (r *record) add(spec Spec) (*variant, error) {
	i := slices.IndexFunc(r.Variants, func(v *variant) bool { return v.Name == spec.Name })
	if i < 0 {
		v := &variant{
			Variant: newVariant(spec),
			Spec:    spec,
			number:  len(r.Variants) + 1,
		}
		v.Slug = newSlug(v.number, spec.Name)
		r.Variants = append(r.Variants, v)

		return v, nil
	}

	v := r.Variants[i]
	v.PricePerHour = spec.PricePerHour

	isSame := v.Spec.Command == spec.Command && v.Spec.URL == spec.URL && v.Spec.Model == spec.Model
	if !isSame && v.Run == nil {
		v.Variant, v.Spec = newVariant(spec), spec
		v.Decided, v.Why = "", ""

		return v, nil
	}

	for _, part := range []struct{ name, was, now string }{
		{"the command", v.Spec.Command, spec.Command},
		{"the server", v.Spec.URL, spec.URL},
		{"the model", v.Spec.Model, spec.Model},
	} {
		if part.was != part.now {
			return nil, exit.Usage("choose another trial with -o, or give the variant another name",
				"%s of the variant %q was %q in this trial, and is %q now", part.name, v.Name, part.was, part.now)
		}
	}

	return v, nil
}

// newVariant returns the variant of a spec before it has begun.
func newVariant(spec Spec) trial.Variant {
	return trial.Variant{
		Name:         spec.Name,
		Model:        spec.Model,
		Settings:     spec.Settings,
		Command:      spec.Command,
		URL:          spec.URL,
		PricePerHour: spec.PricePerHour,
		State:        trial.Waiting,
	}
}

// begin makes an ended variant one that is still to run. Its run goes on where it was.
func (v *variant) begin() {
	v.State, v.Reason, v.Decided, v.Why = trial.Waiting, "", "", ""
	v.EndedAt, v.MeasuredUntil, v.again = time.Time{}, time.Time{}, true
	v.Quality, v.Judged = nil, "" // there will be more answers
}

// isComplete reports whether the run of a variant is complete, and nothing of it is to run again: an earlier process
// was killed before it had noted that.
func (v *variant) isComplete(f folder) bool {
	out := f.output(v.Slug)
	return !v.again && files.Exists(out.Meta()) && !files.Exists(out.Journal())
}

// decided returns how the variant ended.
func (v *variant) decided() (trial.State, string) {
	if v.Decided != "" {
		return v.Decided, v.Why
	}
	return trial.Measured, "all requests of the sample were run"
}

// slugPattern matches the names of the files of variants.
var slugPattern = regexp.MustCompile(`^[0-9]{2,}-[A-Za-z0-9._=-]*$`)

// longestSlug is the longest name of a variant in the names of its files.
const longestSlug = 60

// notInSlug matches what stands for - in the names of files.
var notInSlug = regexp.MustCompile(`[^A-Za-z0-9._=]+`)

// newSlug returns the name of the files of a variant.
func newSlug(number int, name string) string {
	clean := strings.Trim(notInSlug.ReplaceAllString(name, "-"), "-.")
	return fmt.Sprintf("%02d-%s", number, strings.TrimRight(clean[:min(len(clean), longestSlug)], "-."))
}
