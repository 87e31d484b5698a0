package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// proof is what verify found.
type proof struct {
	Requests int  `json:"requests"`
	Answered int  `json:"answered"`
	Failed   int  `json:"failed"`
	Missing  int  `json:"missing"`
	Repeated int  `json:"repeated"`
	Unknown  int  `json:"unknown"`
	Broken   int  `json:"broken"`   // lines that are no output lines
	Swapped  int  `json:"swapped"`  // lines whose response names another request
	Complete bool `json:"complete"` // each request has exactly one line, and nothing else is there
	// Answers is null unless the answers were looked at.
	Answers  *answerProof `json:"answers"`
	Examples []string     `json:"examples"` // of what is wrong, the first few
}

// answerProof is what verify --answers found.
type answerProof struct {
	// Matching are the lines whose request_hash is that of the request with their custom_id.
	Matching int `json:"matching"`
	Foreign  int `json:"foreign"`  // lines with the hash of another request
	Unhashed int `json:"unhashed"` // lines that have no hash, as --plain writes them
	// OtherModel are answers that name a model which other requests of the input asked for.
	OtherModel int `json:"other_model"`
	// Renamed are answers that name a model which no request asked for: an alias, a path.
	Renamed int `json:"renamed"`
}

// whole reports whether nothing speaks against the answers. Lines without a hash among
// others that have one were not written by the run.
func (a answerProof) whole() bool {
	return a.Foreign == 0 && a.OtherModel == 0 && (a.Unhashed == 0 || a.Matching == 0)
}

func verifyCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "prove that each request has exactly one line in the output",
		ArgsUsage: "INPUT... OUTPUT" + output.ResultsSuffix,
		Description: "Reads the input and the output (results, errors, and the journal of a run that is\n" +
			"not complete) and compares them by custom_id: each request must have exactly one line.\n" +
			"With --answers it compares more: the hash of the request that was answered, which each\n" +
			"line has, and the model that the answer names. Nothing can say whether an answer is good.",
		Flags: []cli.Flag{
			&cli.BoolFlag{
				Name:    "answers",
				Usage:   "also compare the request that each line answers, and its model",
				Sources: flagEnv("answers"),
			},
			&cli.BoolFlag{Name: "json", Usage: "print the counts as JSON", Sources: flagEnv("json")},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			args := c.Args().Slice()
			if len(args) == 0 {
				args = []string{""}
			}

			inputs, last := args[:len(args)-1], args[len(args)-1]
			name, ok := strings.CutSuffix(last, output.ResultsSuffix)
			if !ok {
				name, ok = strings.CutSuffix(last, output.JournalSuffix)
			}

			if !ok || len(inputs) == 0 {
				return exit.Usage("for example: promptmill verify prompts.jsonl prompts.results.jsonl.zst",
					"want input files and, last, an output file that ends in %s", output.ResultsSuffix)
			}

			if inputs[0] == "-" {
				path, discard, err := verifyStdin(ctx, env, inputs)
				if err != nil {
					return err
				}
				defer discard()
				inputs = []string{path}
			}

			p, err := verify(ctx, inputs, output.Prefix(name), c.Bool("answers"))
			if errors.Is(err, os.ErrNotExist) {
				return exit.Usage("", "%w", err)
			}
			if err != nil {
				return err
			}

			if c.Bool("json") {
				return errors.Join(json.NewEncoder(env.stdout).Encode(p), p.err())
			}

			p.print(env.stdout)

			return p.err()
		},
	}
}

// verifyStdin copies standard input, which is read twice.
func verifyStdin(ctx context.Context, env environment, inputs []string) (path string, discard func(), err error) {
	if len(inputs) > 1 {
		return "", nil, exit.Usage("", "standard input cannot be mixed with files")
	}

	dir, err := os.MkdirTemp("", "promptmill-")
	if err != nil {
		return "", nil, fmt.Errorf("copy standard input: %w", err)
	}

	discard = func() { os.RemoveAll(dir) }

	input, err := copyStdin(ctx, env.stdin, dir)
	if err != nil {
		discard()
		return "", nil, err
	}

	return input.path, discard, nil
}

// print writes what was found, for people.
func (p proof) print(w io.Writer) {
	fmt.Fprintf(w,
		"%d requests: %d answered, %d failed, %d without a line, %d lines too many, %d lines of no request\n",
		p.Requests, p.Answered, p.Failed, p.Missing, p.Repeated, p.Unknown)

	if p.Answers != nil {
		p.Answers.print(w)
	}

	for _, example := range p.Examples {
		terminal.Fprintf(w, "  %s\n", example)
	}

	switch {
	case !p.Complete:
	case p.Answers == nil:
		fmt.Fprintln(w,
			"proved: each request has exactly one line with its custom_id (--answers also compares what was answered)")
	case p.Answers.Unhashed == p.Answered+p.Failed: // as --plain writes them
		fmt.Fprintln(w,
			"proved: each request has exactly one line with its custom_id; the lines do not say which text they answer")
	case p.Answers.whole():
		fmt.Fprintln(w, "proved: each request has exactly one line, which answers the text of the input")
	}
}

// print writes what was found out about the answers, for people.
func (a answerProof) print(w io.Writer) {
	fmt.Fprintf(w, "%d lines answer the text of the input", a.Matching)
	for _, part := range []struct {
		count int
		text  string
	}{
		{a.Foreign, "answer another text"},
		{a.Unhashed, "do not say which text they answer"},
		{a.OtherModel, "name a model that other requests asked for"},
		{a.Renamed, "name a model that no request asked for"},
	} {
		if part.count > 0 {
			fmt.Fprintf(w, ", %d %s", part.count, part.text)
		}
	}

	fmt.Fprintln(w)
}

func (p proof) err() error {
	switch {
	case p.Swapped > 0:
		return fmt.Errorf("%d lines have the response of another request", p.Swapped)
	case !p.Complete:
		return errors.New("the output is not complete")
	case p.Answers != nil && !p.Answers.whole():
		return errors.New("the output has answers to other requests")
	}

	return nil
}

// maxExamples is how many faults verify names.
const maxExamples = 10

func (p *proof) example(format string, args ...any) {
	if len(p.Examples) < maxExamples {
		p.Examples = append(p.Examples, fmt.Sprintf(format, args...))
	}
}

// verifier compares an input with an output.
type verifier struct {
	proof
	inputs   []string
	output   output.Prefix
	settings proto.Settings // of the run
	wanted   map[[16]byte]wantedLine
	models   map[string]uint32 // of the requests, by name
	names    []string          // the same, by index
}

// wantedLine is what a custom_id still has to have.
type wantedLine struct {
	lines    int32
	refusals bool // a line of it is refused: it is bad, or not the first with its custom_id
	model    uint32
	hash     uint64
}

// verify compares an input with an output, by custom_id and, if answers is set, by what
// was answered.
func verify(ctx context.Context, inputs []string, out output.Prefix, answers bool) (proof, error) {
	v, err := newVerifier(inputs, out, answers)
	if err != nil {
		return proof{}, err
	}
	err = v.compare(ctx)

	return v.proof, err
}

// newVerifier finds out how the run read its input, if its answers are to be looked at.
func newVerifier(inputs []string, out output.Prefix, answers bool) (*verifier, error) {
	v := &verifier{
		proof:    proof{Examples: []string{}},
		inputs:   inputs,
		output:   out,
		settings: proto.Settings{Model: "any"},
		wanted:   map[[16]byte]wantedLine{},
		models:   map[string]uint32{},
	}
	if !answers {
		return v, nil
	}

	v.Answers = &answerProof{}
	m, err := outputManifest(out)
	if err != nil {
		return nil, exit.WithHint(fmt.Errorf("read the settings of the run: %w", err),
			"without --answers only the custom_ids are compared")
	}

	v.settings = m.Settings

	return v, nil
}

// outputManifest reads what the files of a run say of it, complete or not.
func outputManifest(out output.Prefix) (proto.Manifest, error) {
	if files.Exists(out.Journal()) {
		return journal.ReadManifest(out.Journal())
	}

	meta, err := readMeta(out)
	if err != nil {
		return proto.Manifest{}, err
	}

	return *meta.Manifest, nil
}

// compare reads input and output.
func (v *verifier) compare(ctx context.Context) error {
	in, err := producer.NewReader(v.inputs, v.settings, nil)
	if err != nil {
		return err
	}
	defer in.Close()

	if err := v.readInput(ctx, in); err != nil {
		return err
	}

	found := false
	for _, path := range []string{v.output.Results(), v.output.Errors(), v.output.Journal()} {
		if path != v.output.Journal() && files.Exists(v.output.Journal()) {
			continue // the journal has all lines; the files are being written
		}

		err := v.readOutput(ctx, path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}

		found = true
	}

	if !found {
		return exit.Usage("", "there is neither %s nor %s", v.output.Results(), v.output.Journal())
	}

	v.Missing = v.Requests - v.Answered - v.Failed + v.Repeated + v.Unknown
	v.Complete = v.Missing == 0 && v.Repeated == 0 && v.Unknown == 0 && v.Broken == 0 && v.Swapped == 0

	return v.nameMissing(in)
}

// readInput notes what each request has to have. Of several with one custom_id, all but
// the first are refused by the run.
func (v *verifier) readInput(ctx context.Context, in *producer.Reader) error {
	for {
		item, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
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

// modelIndex numbers the models of the input. It may not be that of the run, and so name
// more than a run can have.
func (v *verifier) modelIndex(name string) uint32 {
	i, ok := v.models[name]
	if !ok {
		i = uint32(len(v.names))
		v.models[name] = i
		v.names = append(v.names, name)
	}

	return i
}

// readOutput crosses off the lines of a file.
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
			return nil // the last frame of a journal may be on its way
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
			v.example("%s:%d: %v", path, lines.Line(), err)
			continue
		}

		if other := line.OtherRequest(); other != "" {
			v.Swapped++
			v.example("%s:%d: the line of %s has the response %s, which is another request's",
				path, lines.Line(), line.CustomID, other)
		}

		v.crossOff(line, fmt.Sprintf("%s:%d", path, lines.Line()))
	}
}

// crossOff takes a line for that of its request.
func (v *verifier) crossOff(line proto.Line, at string) {
	if line.OK {
		v.Answered++
	} else {
		v.Failed++
	}

	key := producer.HashID(line.CustomID)
	w, known := v.wanted[key]
	switch {
	case !known:
		v.Unknown++
		v.example("%s: no request is called %s", at, line.CustomID)
		return
	case w.lines == 0:
		v.Repeated++
		v.example("%s: one line too many for %s", at, line.CustomID)
		return
	}

	w.lines--
	v.wanted[key] = w

	if v.Answers != nil {
		v.compareAnswer(w, line, at)
	}
}

// compareAnswer looks whether a line answers the text of its request.
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
		v.example("%s: the line of %s answers another text: its hash is %s, that of the request %s",
			at, line.CustomID, proto.FormatHash(line.RequestHash), proto.FormatHash(w.hash))
	default:
		a.Matching++
	}

	if len(line.Model) == 0 || string(line.Model) == v.names[w.model] {
		return
	}

	if _, ok := v.models[string(line.Model)]; ok {
		a.OtherModel++
		v.example("%s: %s asked for the model %s, and %s has answered", at, line.CustomID, v.names[w.model], line.Model)
		return
	}

	a.Renamed++
}

// refusedHash is the hash of a request that was refused.
func refusedHash(customID []byte) uint64 {
	return proto.Request{CustomID: customID, Refused: proto.CodeInvalidRequest}.Hash()
}

// nameMissing names the first requests that have no line.
func (v *verifier) nameMissing(in *producer.Reader) error {
	if v.Missing == 0 {
		return nil
	}

	if err := in.Seek(proto.Checkpoint{}); err != nil {
		return err
	}

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
			v.example("no line for %s", item.CustomID)
		}
	}

	return nil
}
