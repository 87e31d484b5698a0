package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/inputfile"
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
	results := r.output.Results()
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

	sum, err := producer.Checksum(ctx, r.source(), r.cfg.Settings)
	if err != nil {
		return err
	}

	if sum != in.SHA256 {
		return otherRunError("%s was %s", r.output.Results(), describeInputChange(in.SHA256, sum))
	}

	return nil
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

	return ""
}

// describeInputChange describes how the text of an input differs, by its SHA-256.
func describeInputChange(then, now string) string {
	return fmt.Sprintf("made from another input: its text had a SHA-256 that begins with %.12s, now it begins with %.12s",
		then, now)
}

// describeSettingsChange returns the first setting that changes the results and differs, or "".
func describeSettingsChange(then, now proto.Settings) string {
	for _, d := range []struct {
		name      string
		then, now any
		same      bool
	}{
		{"--sim", then.Simulated, now.Simulated, then.Simulated == now.Simulated},
		{"--model", then.Model, now.Model, then.Model == now.Model},
		{"--override-model", cmp.Or(then.OverrideModel, "none"), cmp.Or(now.OverrideModel, "none"),
			then.OverrideModel == now.OverrideModel},
		{"the endpoint", cmp.Or(then.Endpoint, "none"), cmp.Or(now.Endpoint, "none"), then.Endpoint == now.Endpoint},
		{"--set", setText(then.Set), setText(now.Set), maps.Equal(then.Set, now.Set)},
		{"--skip-invalid", then.SkipInvalid, now.SkipInvalid, then.SkipInvalid == now.SkipInvalid},
		{"--retry-truncated", then.RetryTruncated, now.RetryTruncated, then.RetryTruncated == now.RetryTruncated},
		{"--schema", schemaText(then.Schema), schemaText(now.Schema),
			schemaText(then.Schema) == schemaText(now.Schema)},
	} {
		if !d.same {
			return fmt.Sprintf("which had other settings: %s was %v and is %v now", d.name, d.then, d.now)
		}
	}

	return ""
}

// setText returns the fields of --set, or "none".
func setText(set map[string]string) string {
	var fields []string
	for _, name := range slices.Sorted(maps.Keys(set)) {
		fields = append(fields, name+"="+set[name])
	}
	return cmp.Or(strings.Join(fields, " "), "none")
}

// schemaText returns the schema of a run, or "none". The metadata has it with line breaks.
func schemaText(schema json.RawMessage) string {
	var compact bytes.Buffer
	if len(schema) == 0 || json.Compact(&compact, schema) != nil {
		return "none"
	}
	return compact.String()
}

// checkUnchanged returns an error that wraps proto.ErrInputChanged if an input file is not what
// validation has read. It reads the files only where their attributes leave that open.
func checkUnchanged(ctx context.Context, in proto.Input, s proto.Settings, source producer.Source) error {
	now, err := source.Describe(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", proto.ErrInputChanged, err)
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
