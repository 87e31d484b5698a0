// Package score scores answers with a command of the user.
//
// A [Command] runs in the shell. It reads one answer a line on standard input, a JSON object as [quality.Answer] has
// it, and prints one score a line, in the same order: a number from 0 to 1, true or false, or a JSON object with one of
// them as "score". It may answer line by line, or read all answers first. Anything else is refused, with the line or
// what the command printed last as its error.
package score

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/deploy/usershell"
)

// DefaultPatience is the default of [Command.Patience].
const DefaultPatience = time.Hour

// Command is a command of the user that scores answers.
type Command struct {
	// Script is a script of the shell, see [usershell.Check]. Required.
	Script string
	// Patience is the longest time in which the command neither reads an answer nor prints a score, before it is
	// stopped. Defaults to [DefaultPatience]: a command may read all answers first and then work for long.
	Patience time.Duration
	// Print, if not nil, gets each line that the command prints on standard error.
	Print func(line string)
}

var _ quality.Scorer = Command{}

// String returns the script.
func (c Command) String() string { return c.Script }

// checkAnswer is the answer that Check makes up.
var checkAnswer = quality.Answer{
	CustomID: "request-1",
	Request:  json.RawMessage(`{"model":"check","messages":[{"role":"user","content":"What is 6 times 7?"}]}`),
	Text:     "42",
}

// Check runs the command with one made-up answer, the 42 that a model says to "What is 6 times 7?", with the expected
// answer 42 if answers are expected.
func (c Command) Check(ctx context.Context, isExpected bool) error {
	a := checkAnswer
	if isExpected {
		a.Expected = &a.Text
	}

	_, err := c.Score(ctx, func(yield func(quality.Answer, error) bool) { yield(a, nil) })
	if err != nil {
		return fmt.Errorf("it was tried with one made-up answer: %w", err)
	}

	return nil
}

// Score implements [quality.Scorer]. The error says in words what is wrong with the command, or wraps that of an
// answer, or the cause of ctx's end.
func (c Command) Score(ctx context.Context, answers iter.Seq2[quality.Answer, error]) ([]float64, error) {
	s := newScoring(ctx, c)
	defer s.end()

	if err := s.run(answers); err != nil {
		return nil, err
	}

	return s.scores.list, nil
}

// scoring is a run of a command.
type scoring struct {
	command Command
	ctx     context.Context
	// stop ends the command with a reason, which is the error of the scoring.
	stop context.CancelCauseFunc
	// idle stops the command if nothing happens for long.
	idle *time.Timer

	scores  *scoreReader
	sent    sentCounter
	printed []string // the last lines on standard error
}

// newScoring returns a scoring that has not begun.
func newScoring(ctx context.Context, c Command) *scoring {
	if c.Patience <= 0 {
		c.Patience = DefaultPatience
	}

	s := &scoring{command: c}
	s.ctx, s.stop = context.WithCancelCause(ctx)
	s.idle = time.AfterFunc(c.Patience, func() {
		s.stop(fmt.Errorf("the command has neither read an answer nor printed a score for %s", c.Patience))
	})
	s.scores = &scoreReader{
		sent: &s.sent,
		stop: s.stop,
		read: func() { s.idle.Reset(c.Patience) },
	}

	return s
}

// end releases what the scoring holds.
func (s *scoring) end() {
	s.idle.Stop()
	s.stop(nil)
}

// run runs the command for answers.
func (s *scoring) run(answers iter.Seq2[quality.Answer, error]) error {
	cmd := usershell.Command(s.ctx, s.command.Script)
	cmd.Env = environment()
	cmd.Stdout = s.scores
	messages := &usershell.Lines{Print: s.keepMessage}
	cmd.Stderr = messages

	input, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start the command: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the command: %w", err)
	}

	// The command may print while it reads, or after: it is written to from here, and read by os/exec.
	var (
		writeErr error
		writing  sync.WaitGroup
	)
	writing.Go(func() { writeErr = s.write(input, answers) })

	err = usershell.Wait(s.ctx, cmd) // it closes the input, and so ends a write that nothing reads
	writing.Wait()
	messages.Flush()
	s.scores.flush()

	return s.judge(err, writeErr)
}

// environment returns the environment of the command: that of this process, without the command itself. It may call
// promptmill.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(pair string) bool {
		return strings.HasPrefix(pair, "PROMPTMILL_SCORE=")
	})
}

// write writes the answers as lines. An error of an answer stops the command.
func (s *scoring) write(input io.WriteCloser, answers iter.Seq2[quality.Answer, error]) error {
	defer input.Close()

	buf := bufio.NewWriterSize(input, 64<<10)
	lines := json.NewEncoder(buf)
	lines.SetEscapeHTML(false)

	for a, err := range answers {
		if err != nil {
			s.stop(err)
			return err
		}

		s.sent.add() // before the command can answer it

		if err := lines.Encode(a); err != nil {
			return err
		}
		s.idle.Reset(s.command.Patience)
	}

	return buf.Flush()
}

// keptMessages is the number of lines of standard error in an error.
const keptMessages = 5

// keepMessage keeps a line that the command prints on standard error.
func (s *scoring) keepMessage(line string) {
	if s.command.Print != nil {
		s.command.Print(line)
	}

	s.printed = append(s.printed, line)
	if len(s.printed) > keptMessages {
		s.printed = s.printed[1:]
	}
}

// judge returns what was wrong with a command that has ended.
func (s *scoring) judge(exitErr, writeErr error) error {
	got, sent := len(s.scores.list), s.sent.count()
	switch {
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case exitErr != nil && len(s.printed) > 0:
		return fmt.Errorf("the command ended with %w:\n  %s", exitErr, strings.Join(s.printed, "\n  "))
	case exitErr != nil:
		return fmt.Errorf("the command ended with %w, and printed nothing on standard error", exitErr)
	case writeErr != nil:
		return errors.New("the command ended before it had read all answers; it must read its standard input to the end")
	case got != sent:
		return fmt.Errorf("the command printed %d lines for %d answers; it must print one score for each", got, sent)
	}

	return nil
}
