// Package verify proves that an output has exactly one line for each request of an input.
//
// [Run] reads the input, notes the line that each custom_id must have, and crosses it off line
// by line: of the final files or, while a run is not complete, of its journal. It shares no code
// with the collector but the format of the files. With Config.Answers it also compares the hash
// of the request that each line answers, and the model that has answered.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Config names the files to compare.
type Config struct {
	// Inputs are the files of requests. Required.
	Inputs []string
	// Opener opens the inputs. Defaults to files of this machine.
	Opener inputfile.Opener
	// Output is the output. Required.
	Output output.Prefix
	// Answers also compares the answered requests and the models that answered.
	Answers bool
}

// Run compares an input with an output. It returns the error of reading them; [Result.Err]
// returns the error of the output.
func Run(ctx context.Context, cfg Config) (Result, error) {
	v, err := newVerifier(cfg)
	if err != nil {
		return Result{}, err
	}

	err = v.compare(ctx)

	return v.Result, err
}

// verifier compares an input with an output.
type verifier struct {
	Result

	cfg Config
	// manifest has the settings and the input of the run, see ReadSelection.
	manifest proto.Manifest
	// digest is the digest of the requests of the input, and refused the first of them that is refused.
	digest  proto.Digest
	refused error
	wanted  map[[16]byte]wantedLine
	models  map[string]uint32 // of the requests, by name
	names   []string          // the same, by index
}

// wantedLine counts the lines that the output must still have for a custom_id.
type wantedLine struct {
	lines    int32
	refusals bool // a request is refused: it is bad, or not the first one with its custom_id
	model    uint32
	hash     uint64
}

// newVerifier reads the settings of the run, if its answers are to be compared.
func newVerifier(cfg Config) (*verifier, error) {
	v := &verifier{
		Result:   Result{Examples: []string{}},
		cfg:      cfg,
		manifest: ReadSelection(cfg.Output),
		wanted:   map[[16]byte]wantedLine{},
		models:   map[string]uint32{},
	}
	if !cfg.Answers {
		return v, nil
	}

	v.Result.Answers = &AnswerResult{}
	m, err := readManifest(cfg.Output)
	if err != nil {
		return nil, exit.WithHint(fmt.Errorf("read the settings of the run: %w", err),
			"without --answers only the custom_ids are compared")
	}

	v.manifest = m

	return v, nil
}

// ReadSelection reads from the files of an output what decides which requests its input has. Of a run of rows it
// returns the manifest, and of any other the settings of limits and samples, and no input. An output
// whose run cannot be read has the zero settings, for lines that are requests each.
func ReadSelection(out output.Prefix) proto.Manifest {
	lines := proto.Manifest{Settings: proto.Settings{Model: "any"}}

	m, err := readManifest(out)
	switch {
	case err != nil:
		return lines
	case m.Settings.Rows != nil:
		return m
	}

	lines.Settings.Limit, lines.Settings.Sample = m.Settings.Limit, m.Settings.Sample

	return lines
}

// readManifest reads the manifest of a run from its files, whether it is complete or not.
func readManifest(out output.Prefix) (proto.Manifest, error) {
	if files.Exists(out.Journal()) {
		return journal.ReadManifest(out.Journal())
	}

	meta, err := out.ReadMeta()
	if err != nil {
		return proto.Manifest{}, err
	}

	return *meta.Manifest, nil
}

// compare reads input and output.
func (v *verifier) compare(ctx context.Context) error {
	in, err := v.openInput(ctx)
	if err != nil {
		return err
	}
	defer in.Close()

	if err := v.readInput(ctx, in); err != nil {
		return err
	}

	found := false
	for _, path := range []string{v.cfg.Output.Results(), v.cfg.Output.Errors(), v.cfg.Output.Journal()} {
		if path != v.cfg.Output.Journal() && files.Exists(v.cfg.Output.Journal()) {
			continue // the journal has all lines while the files are written
		}

		err := v.readOutput(ctx, path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}

		found = true
		if path == v.cfg.Output.Journal() {
			v.journal = files.Short(path)
		}
	}

	if !found {
		return exit.Usage("", "there is neither %s nor %s", v.cfg.Output.Results(), v.cfg.Output.Journal())
	}

	v.Missing = v.Requests - v.Answered - v.Failed + v.Repeated + v.Unknown
	v.Complete = v.Missing == 0 && v.Repeated == 0 && v.Unknown == 0 && v.Broken == 0 && v.Swapped == 0
	if !v.Complete {
		v.nameRun()
	} else if err := v.compareRows(); err != nil {
		return err
	}

	return v.addMissing(in)
}

// openInput opens the input: rows as the run has read them, and lines as they are.
func (v *verifier) openInput(ctx context.Context) (*producer.Reader, error) {
	if v.manifest.Settings.Rows != nil {
		return producer.NewRunReader(ctx, producer.SourceOf(v.manifest.Input, v.cfg.Inputs, v.cfg.Opener), v.manifest)
	}
	return producer.NewReader(ctx, producer.Source{Files: v.cfg.Inputs, Opener: v.cfg.Opener}, v.manifest.Settings, nil)
}

// compareRows returns an error if the requests of rows are not those of the run. Their custom_ids do not show it:
// most are the numbers of the requests, which another input of the same length has too.
func (v *verifier) compareRows() error {
	then := v.manifest.Input
	if v.manifest.Settings.Rows == nil || v.digest == then.Digest {
		return nil
	}

	reason := "its rows give other requests"
	if v.refused != nil && then.Invalid == 0 {
		reason = v.refused.Error()
	}

	return exit.WithHint(fmt.Errorf("the input is not the one of run %s: %s", v.manifest.Run, reason),
		"give the input as it was when the run began: "+listInputs(then))
}

// nameRun records the run of the output and its input, where the output still has them.
func (v *verifier) nameRun() {
	m, err := readManifest(v.cfg.Output)
	if err != nil {
		return
	}

	v.run, v.input = m.Run, listInputs(m.Input)
}

// listInputs returns the paths of the files of an input.
func listInputs(in proto.Input) string {
	var paths []string
	for _, file := range in.Files {
		paths = append(paths, files.Short(file.Path))
	}
	return strings.Join(paths, " ")
}

// readInput records the line that the output must have for each request. Of several with one
// custom_id the run refuses all but the first.
func (v *verifier) readInput(ctx context.Context, in *producer.Reader) error {
	for {
		item, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}

		if v.manifest.Settings.Rows != nil {
			v.digest.Add(item.Index, item.CustomID, item.Hash())
			if item.Err != nil && v.refused == nil {
				v.refused = fmt.Errorf("%s: %w", item.Place(), item.Err)
			}
		}

		key := producer.HashID(item.CustomID)
		w, repeated := v.wanted[key]
		if !repeated && v.Answers != nil {
			w.model, w.hash = v.modelIndex(item.Model), item.Hash()
		}

		w.refusals = w.refusals || repeated || item.Err != nil
		w.lines++
		v.wanted[key] = w

		if v.Requests++; v.Requests%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// modelIndex returns the index of a model of the input, which may not be that of the run, and
// so may name more models than a run can have.
func (v *verifier) modelIndex(name string) uint32 {
	i, ok := v.models[name]
	if !ok {
		i = uint32(len(v.names))
		v.models[name] = i
		v.names = append(v.names, name)
	}

	return i
}

// readOutput reads the lines of a file.
func (v *verifier) readOutput(ctx context.Context, path string) error {
	file, err := jsonl.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()

	lines := jsonl.NewReader(file)
	var scan jsonscan.Scanner
	for {
		text, err := lines.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) &&
			strings.HasSuffix(path, output.JournalSuffix) {
			return nil // the last frame of a journal may be incomplete
		}
		if err != nil {
			return err
		}

		if lines.Line()%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}

		line, err := proto.ParseLine(&scan, text)
		if err == nil && line.Status == 0 && line.ErrorCode == "unknown" {
			err = errors.New("the line has neither an answer nor an error")
		}
		if err != nil {
			v.Broken++
			v.addExample("%s:%d: %v", path, lines.Line(), err)
			continue
		}

		if other := line.OtherRequest(); other != "" {
			v.Swapped++
			v.addExample("%s:%d: the line of %s has the response %s, which is another request's",
				path, lines.Line(), line.CustomID, other)
		}

		v.matchLine(line, fmt.Sprintf("%s:%d", path, lines.Line()))
	}
}

// matchLine assigns a line to its request.
func (v *verifier) matchLine(line proto.Line, at string) {
	if line.OK {
		v.Answered++
	} else {
		v.Failed++
	}
	if proto.IsNotSent(line.ErrorCode) {
		v.NotSent++
	}

	key := producer.HashID(line.CustomID)
	w, known := v.wanted[key]
	switch {
	case !known:
		v.Unknown++
		v.addExample("%s: no request is called %s", at, line.CustomID)
		return
	case w.lines == 0:
		v.Repeated++
		v.addExample("%s: one line too many for %s", at, line.CustomID)
		return
	}

	w.lines--
	v.wanted[key] = w

	if v.Answers != nil {
		v.compareAnswer(w, line, at)
	}
}

// compareAnswer checks whether a line answers the text of its request.
func (v *verifier) compareAnswer(w wantedLine, line proto.Line, at string) {
	a := v.Answers
	switch {
	case !line.Hashed:
		a.Unhashed++
	case w.refusals && line.ErrorCode == proto.CodeInvalidRequest && line.RequestHash == refusedHash(line.CustomID):
		a.Matching++
		return
	case line.RequestHash != w.hash:
		a.Foreign++
		v.addExample("%s: the line of %s answers another text: its hash is %s, that of the request %s",
			at, line.CustomID, proto.FormatHash(line.RequestHash), proto.FormatHash(w.hash))
	default:
		a.Matching++
	}

	if len(line.Model) == 0 || string(line.Model) == v.names[w.model] {
		return
	}

	if _, ok := v.models[string(line.Model)]; ok {
		a.OtherModel++
		v.addExample("%s: %s asked for the model %s, and %s has answered",
			at, line.CustomID, v.names[w.model], line.Model)
		return
	}

	a.Renamed++
}

// refusedHash returns the hash of a refused request.
func refusedHash(customID []byte) uint64 {
	return proto.Request{CustomID: customID, Refused: proto.CodeInvalidRequest}.Hash()
}

// addMissing adds the first requests without a line to the examples.
func (v *verifier) addMissing(in *producer.Reader) error {
	if v.Missing == 0 {
		return nil
	}

	if err := in.Seek(proto.Checkpoint{}); err != nil {
		return err
	}

	begun := len(v.Examples)
	defer func() { v.omitted += v.Missing - (len(v.Examples) - begun) }()

	for len(v.Examples) < maxExamples {
		item, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}

		key := producer.HashID(item.CustomID)
		if w := v.wanted[key]; w.lines > 0 {
			w.lines = 0
			v.wanted[key] = w
			v.addExample("no line for %s", item.CustomID)
		}
	}

	return nil
}
