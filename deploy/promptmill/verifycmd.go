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

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

// proof is what verify found.
type proof struct {
	Requests int      `json:"requests"`
	Answered int      `json:"answered"`
	Failed   int      `json:"failed"`
	Missing  int      `json:"missing"`
	Repeated int      `json:"repeated"`
	Unknown  int      `json:"unknown"`
	Broken   int      `json:"broken"`   // lines that are no output lines
	Complete bool     `json:"complete"` // each request has exactly one line, and nothing else is there
	Examples []string `json:"examples"` // of what is wrong, the first few
}

func verifyCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "prove that each request has exactly one line in the output",
		ArgsUsage: "INPUT... OUTPUT" + collector.OutputSuffix,
		Description: "Reads the input and the output (results, errors, and the journal of a run that is\n" +
			"not complete) and holds them against each other by custom_id.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print the counts as JSON", Sources: flagEnv("json")},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			args := c.Args().Slice()
			if len(args) == 0 {
				args = []string{""}
			}
			inputs, last := args[:len(args)-1], args[len(args)-1]
			name, ok := strings.CutSuffix(last, collector.OutputSuffix)
			if !ok {
				name, ok = strings.CutSuffix(last, collector.JournalSuffix)
			}
			if !ok || len(inputs) == 0 {
				return usage("for example: promptmill verify prompts.jsonl prompts.results.jsonl.zst", "want input files and, last, an output file that ends in %s", collector.OutputSuffix)
			}
			out := collector.Output(name)
			p, err := verify(inputs, out)
			if errors.Is(err, os.ErrNotExist) {
				return usage("", "%w", err)
			}
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return errors.Join(json.NewEncoder(env.stdout).Encode(p), p.err())
			}
			fmt.Fprintf(env.stdout, "%d requests: %d answered, %d failed, %d without a line, %d lines too many, %d lines of no request\n",
				p.Requests, p.Answered, p.Failed, p.Missing, p.Repeated, p.Unknown)
			for _, example := range p.Examples {
				printf(env.stdout, "  %s\n", example)
			}
			if p.Complete {
				fmt.Fprintln(env.stdout, "proved: each request has exactly one line")
			}
			return p.err()
		},
	}
}

func (p proof) err() error {
	if p.Complete {
		return nil
	}
	return errors.New("the output is not complete")
}

// maxExamples is how many faults verify names.
const maxExamples = 10

func (p *proof) example(format string, args ...any) {
	if len(p.Examples) < maxExamples {
		p.Examples = append(p.Examples, fmt.Sprintf(format, args...))
	}
}

// verify compares by custom_id, the one thing that input and output have in common
// for any reader.
func verify(inputs []string, out collector.Output) (proof, error) {
	p := proof{Examples: []string{}}
	in, err := producer.NewReader(inputs, proto.Settings{Model: "any"}, nil)
	if err != nil {
		return p, err
	}
	defer in.Close()
	wanted := map[[16]byte]int32{} // how many lines each custom_id still has to have
	for {
		item, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return p, err
		}
		wanted[producer.HashID(item.CustomID)]++
		p.Requests++
	}
	found := false
	for _, path := range []string{out.Results(), out.Errors(), out.Journal()} {
		if path != out.Journal() && exists(out.Journal()) {
			continue // the journal has all lines; the files are being written
		}
		err := p.readOutput(path, wanted)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return p, err
		}
		found = true
	}
	if !found {
		return p, usage("", "there is neither %s nor %s", out.Results(), out.Journal())
	}
	if err := in.Seek(proto.Point{}); err != nil {
		return p, err
	}
	for p.Missing = p.Requests - p.Answered - p.Failed + p.Repeated + p.Unknown; p.Missing > 0 && len(p.Examples) < maxExamples; {
		item, err := in.Next()
		if err != nil {
			break
		}
		if key := producer.HashID(item.CustomID); wanted[key] > 0 {
			wanted[key] = 0
			p.example("no line for %s", item.CustomID)
		}
	}
	p.Complete = p.Missing == 0 && p.Repeated == 0 && p.Unknown == 0 && p.Broken == 0
	return p, nil
}

// readOutput crosses off the lines of a file.
func (p *proof) readOutput(path string, wanted map[[16]byte]int32) error {
	file, err := producer.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := producer.NewLineReader(file)
	var scan proto.Scanner
	for {
		text, err := lines.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && strings.HasSuffix(path, ".part.zst") {
			return nil // the last frame of a journal may be on its way
		}
		if err != nil {
			return err
		}
		line, err := proto.ParseLine(&scan, text)
		if err != nil {
			p.Broken++
			p.example("%s:%d: %v", path, lines.Line(), err)
			continue
		}
		if line.OK {
			p.Answered++
		} else {
			p.Failed++
		}
		left, known := wanted[producer.HashID(line.CustomID)]
		switch {
		case !known:
			p.Unknown++
			p.example("%s:%d: no request is called %s", path, lines.Line(), line.CustomID)
		case left == 0:
			p.Repeated++
			p.example("%s:%d: one line too many for %s", path, lines.Line(), line.CustomID)
		default:
			wanted[producer.HashID(line.CustomID)] = left - 1
		}
	}
}
