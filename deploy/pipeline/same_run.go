package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// otherRunError returns an error that wraps ErrOtherRun.
func otherRunError(format string, args ...any) error {
	return exit.WithHint(&kindError{fmt.Errorf(format, args...), ErrOtherRun},
		"give the same command as then, or choose another output with -o")
}

// checkSameRun refuses to go on with another input or other settings than the run of a manifest
// has.
func (r *runner) checkSameRun(ctx context.Context, m proto.Manifest) error {
	results := placeOf(r.cfg.Upload, r.output).Results()
	if r.cfg.RunID != "" && r.cfg.RunID != m.Run {
		return otherRunError("%s belongs to run %s, not to %s", results, m.Run, r.cfg.RunID)
	}

	want, has := r.cfg.Settings, m.Settings
	if want.Model == "" {
		want.Model = has.Model // found on the server when the run began
	}

	if text := describeSettingsChange(has, want); text != "" {
		return otherRunError("%s belongs to run %s, %s", results, m.Run, text)
	}

	return r.checkSameInput(ctx, m.Input)
}

// checkSameInput compares the input files with those of a run: by their contents, unless they are
// the same files and nothing has touched them.
func (r *runner) checkSameInput(ctx context.Context, in proto.Input) error {
	now, err := r.source().Describe(ctx)
	if err != nil {
		return exit.Usage("", "input: %w", err)
	}

	same := len(in.Files) == len(now)
	for i := 0; same && i < len(now); i++ {
		same = in.Files[i].Path == now[i].Path && inputfile.IsUnchanged(in.Files[i], now[i])
	}

	if same {
		return nil
	}

	err = producer.CheckInput(ctx, in, r.cfg.Settings, producer.SourceOf(in, r.inputs, r.cfg.Opener))
	if errors.Is(err, proto.ErrInputChanged) {
		reason := err.Error()
		if changed, ok := errors.AsType[*producer.ChangedInputError](err); ok {
			reason = changed.Reason
		}

		return otherRunError("%s was made from another input: %s", placeOf(r.cfg.Upload, r.output).Results(), reason)
	}

	return err
}

// describeRunChange describes how the runs of two manifests with the same id differ: in the text of
// the input, in the settings, or in the requests that the settings make of the input. It returns ""
// if both have the same requests. Each run that is resumed (on a bus, in a journal, in an output)
// is compared with the run that the caller expects.
func describeRunChange(then, now proto.Manifest) string {
	if then.Input.SHA256 != now.Input.SHA256 {
		return describeInputChange(then.Input.SHA256, now.Input.SHA256)
	}

	if text := describeSettingsChange(then.Settings, now.Settings); text != "" {
		return text
	}

	if then.Input.Requests != now.Input.Requests || then.Input.Digest != now.Input.Digest {
		return fmt.Sprintf("made of %d other requests: its digest is %s, and %d requests now have %s",
			then.Input.Requests, then.Input.Digest, now.Input.Requests, now.Input.Digest)
	}

	if now.Settings.Rows != nil {
		return describeTableChange(then.Input, now.Input)
	}

	return ""
}

// describeTableChange describes how the same text is another table, which can have the same requests if they do not
// use all columns. It returns "" if it is the same.
func describeTableChange(then, now proto.Input) string {
	if len(then.Files) != len(now.Files) {
		return fmt.Sprintf("made from %d files, not %d", len(then.Files), len(now.Files))
	}

	for i, was := range then.Files {
		is := now.Files[i]
		place := fmt.Sprintf("made from another table: %s was", is.Path)

		switch {
		case was.Format != is.Format:
			return fmt.Sprintf("%s %s, and is %s now", place, was.Format, is.Format)
		case was.Delimiter != is.Delimiter:
			return fmt.Sprintf("%s divided by %q, and is by %q now", place, was.Delimiter, is.Delimiter)
		case was.TextBytes != is.TextBytes:
			return fmt.Sprintf("%s a text of %d bytes, and is one of %d now", place, was.TextBytes, is.TextBytes)
		case !table.SamePartitions(was.OriginalPath(), is.OriginalPath()):
			return fmt.Sprintf("%s %s, whose folders give other columns", place, was.OriginalPath())
		}
	}

	return ""
}

// describeInputChange describes how the text of an input differs, by its SHA-256.
func describeInputChange(then, now string) string {
	return fmt.Sprintf("made from another input: its text had a SHA-256 that begins with %.12s, now it begins with %.12s",
		then, now)
}

// describeSettingsChange returns the first setting that changes the results and differs, or "".
func describeSettingsChange(then, now proto.Settings) string {
	before, rows := cmp.Or(then.Rows, &proto.Rows{}), cmp.Or(now.Rows, &proto.Rows{})
	for _, d := range []struct{ name, then, now string }{
		{"--sim", strconv.FormatBool(then.Simulated), strconv.FormatBool(now.Simulated)},
		{"--model", then.Model, now.Model},
		{"--override-model", then.OverrideModel, now.OverrideModel},
		{"--endpoint", then.Endpoint, now.Endpoint},
		{"--prompt", before.Prompt, rows.Prompt},
		{"--system", before.System, rows.System},
		{"--messages", before.Messages, rows.Messages},
		{"--image", listText(before.Images), listText(rows.Images)},
		{"--custom-id", before.CustomID, rows.CustomID},
		{"--format", before.Table.Format, rows.Table.Format},
		{"--columns", listText(before.Table.Columns), listText(rows.Table.Columns)},
		{"--delimiter", before.Table.Delimiter, rows.Table.Delimiter},
		{"--encoding", before.Table.Encoding, rows.Table.Encoding},
		{"--limit", countText(then.Limit), countText(now.Limit)},
		{"--sample", countText(then.Sample), countText(now.Sample)},
		{"--set", setText(then.Set), setText(now.Set)},
		{"--skip-invalid", strconv.FormatBool(then.SkipInvalid), strconv.FormatBool(now.SkipInvalid)},
		{"--retry-truncated", factorText(then.RetryTruncated), factorText(now.RetryTruncated)},
		{"--schema", schemaText(then.Schema), schemaText(now.Schema)},
	} {
		if d.then != d.now {
			was, is := showChange(d.then, d.now)
			return fmt.Sprintf("which had other settings: %s was %s and is %s now", d.name, was, is)
		}
	}

	return ""
}

// maxChange is the most bytes of a setting that are printed where it differs from another.
const maxChange = 200

// showChange returns two texts that differ, on one line each, or "none". Of long ones it returns the
// parts in which they begin to differ.
func showChange(then, now string) (was, is string) {
	from := 0
	if max(len(then), len(now)) > maxChange {
		for from < min(len(then), len(now)) && then[from] == now[from] {
			from++
		}
		from = max(0, from-maxChange/4)
	}

	return showPart(then, from), showPart(now, from)
}

// showPart returns the part of a text from an offset on, or "none".
func showPart(text string, from int) string {
	if text == "" {
		return "none"
	}

	part := strings.ToValidUTF8(text[from:min(len(text), from+maxChange)], "")
	if strings.ContainsFunc(part, unicode.IsControl) {
		part = strconv.Quote(part)
	}

	if from > 0 {
		part = "..." + part
	}
	if from+maxChange < len(text) {
		part += "..."
	}

	return part
}

// listText returns a list of names in quotes, or "".
func listText(names []string) string {
	var quoted []string
	for _, name := range names {
		quoted = append(quoted, strconv.Quote(name))
	}
	return strings.Join(quoted, ", ")
}

// countText returns a number, or "" for 0.
func countText(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// factorText returns a factor, or 0 for none.
func factorText(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// setText returns the fields of --set, or "".
func setText(set map[string]string) string {
	var fields []string
	for _, name := range slices.Sorted(maps.Keys(set)) {
		fields = append(fields, name+"="+set[name])
	}
	return strings.Join(fields, " ")
}

// schemaText returns the schema of a run, or "". The metadata has it with line breaks.
func schemaText(schema json.RawMessage) string {
	var compact bytes.Buffer
	if len(schema) == 0 || json.Compact(&compact, schema) != nil {
		return ""
	}
	return compact.String()
}

// checkUnchanged returns an error that wraps proto.ErrInputChanged if an input file is not what
// validation has read. It reads the files only where their attributes leave that open.
func checkUnchanged(ctx context.Context, in proto.Input, s proto.Settings, source producer.Source) error {
	now, err := source.Describe(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", proto.ErrInputChanged, err)
	}
	if err != nil {
		return err
	}

	same := true
	for i, f := range in.Files {
		same = same && inputfile.IsUnchanged(f, now[i])
	}

	if same {
		return nil
	}

	return producer.CheckInput(ctx, in, s, source)
}
