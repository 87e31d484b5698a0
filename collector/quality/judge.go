package quality

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"unicode/utf8"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/openai"
)

// Config says what to judge.
type Config struct {
	// Output is the output of the run, which has ended. Its lines name their requests: it is not --plain. Required.
	Output output.Prefix
	// Sample is the path of the input of the run: JSON lines in batch form, in the order of request indexes, not
	// compressed. Required.
	Sample string
	// Expected is the path of the expected answers: a line for each request of the sample, in its order, with a JSON
	// string, or null for a request that is not judged. Empty: none.
	Expected string
	// Match is how an answer is compared with the expected one. Defaults to [Exact].
	Match Match
	// Scorer scores the answers; nil: nothing does.
	Scorer Scorer
	// Verdicts is the path of a file with the verdict of each request, for [Compare]. Empty: none.
	Verdicts string
}

// ErrNoText is wrapped by the error for answers that are vectors or rankings, if their text is to be judged.
var ErrNoText = errors.New("the answers have no text: they are embeddings or rankings")

// Judge judges the answers of a run that has ended. It needs little memory, however large the answers are. Requests
// that were not sent, since the run was cancelled or they are invalid, do not count.
//
// It refuses an output that is not as its run has written it (the error wraps [output.ErrModified]), a sample or
// expected answers that are not those of the run, answers without text if they are to be compared or scored
// ([ErrNoText]), and the first expected answer that is none ([ExpectedError]).
func Judge(ctx context.Context, cfg Config) (*Quality, error) {
	j, err := newJudge(cfg)
	if err != nil {
		return nil, err
	}
	defer j.close()

	for _, path := range []string{cfg.Output.Results(), cfg.Output.Errors()} {
		if err := readLines(ctx, path, j.add); err != nil {
			return nil, err
		}
	}

	if cfg.Scorer != nil {
		if err := j.score(ctx); err != nil {
			return nil, err
		}
	}

	if cfg.Verdicts != "" {
		if err := j.verdicts.write(cfg.Verdicts); err != nil {
			return nil, err
		}
	}

	return j.sumUp(), nil
}

// judge judges the answers of a run.
type judge struct {
	cfg      Config
	sample   *sample
	expected *expectedFile // nil: none
	// isJSON reports that the run has a schema, so that its answers are JSON.
	isJSON   bool
	verdicts verdicts

	// atOnce counts the requests whose first answer matches the schema.
	atOnce int
	// texts counts the answers with a text, characters their characters, and empty those without any.
	texts, characters, empty int
	// wrong is the first answer that is not the expected one; nil: none so far.
	wrong *Wrong
	// data counts the answers that have no text.
	data int
	scan jsonscan.Scanner
}

// newJudge checks what there is to judge.
func newJudge(cfg Config) (_ *judge, err error) {
	if cfg.Match == "" {
		cfg.Match = Exact
	}
	if cfg.Match != Exact && cfg.Match != Number {
		return nil, fmt.Errorf("quality: Config.Match is %q, must be %q or %q", cfg.Match, Exact, Number)
	}

	if _, err := os.Stat(cfg.Output.Journal()); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the run of %s has not ended, so its answers cannot be judged yet", cfg.Output.Journal())
	}

	meta, err := cfg.Output.ReadMeta()
	if err != nil {
		return nil, err
	}
	if meta.Config.Plain {
		return nil, fmt.Errorf("%s was written with --plain: its lines do not say which requests they answer",
			cfg.Output.Results())
	}
	if err := cfg.Output.CheckFiles(meta); err != nil {
		return nil, err
	}

	j := &judge{cfg: cfg, isJSON: meta.Manifest.Settings.Schema != nil}
	if j.sample, err = openSample(cfg.Sample); err != nil {
		return nil, err
	}

	if err := j.prepare(meta.Manifest.Input.Requests); err != nil {
		j.close()
		return nil, err
	}

	return j, nil
}

// prepare makes room for the verdicts of a number of requests, and reads what is expected of them.
func (j *judge) prepare(requests int) (err error) {
	if n := len(j.sample.ends); n != requests {
		return fmt.Errorf("%s has %d requests, and the run of %s has %d: it is not its input", j.cfg.Sample, n,
			j.cfg.Output.Meta(), requests)
	}

	v := &j.verdicts
	v.sample = j.sample.sum
	v.list = make([]verdict, requests)
	for i := range v.list {
		v.list[i].score = math.NaN()
	}

	switch {
	case j.cfg.Match == Number:
		v.mode = asNumber
	case j.isJSON:
		v.mode = asJSON
	default:
		v.mode = asText
	}

	if j.cfg.Expected == "" {
		return nil
	}

	if j.expected, err = openExpected(j.cfg.Expected, j.cfg.Match, j.isJSON); err != nil {
		return err
	}
	v.expected = j.expected.sum

	if n := len(j.expected.list); n != requests {
		return fmt.Errorf("%s has %d expected answers, and the sample %s has %d requests", j.cfg.Expected, n,
			j.cfg.Sample, requests)
	}

	return nil
}

// close closes the files.
func (j *judge) close() {
	j.sample.close()
	if j.expected != nil {
		j.expected.close()
	}
}

// add judges an output line.
func (j *judge) add(l proto.Line, body []byte) error {
	if proto.IsNotSent(l.ErrorCode) {
		return nil
	}

	if err := j.checkRequest(l); err != nil {
		return err
	}

	v := &j.verdicts.list[l.Index]
	if v.outcome != notRun {
		return fmt.Errorf("it is the second line of request %d, %s", l.Index+1, l.CustomID)
	}

	v.outcome = failed
	if j.isJSON {
		v.matched = truthOf(l.OK)
		if l.OK && !wasAskedAgain(l) {
			j.atOnce++
		}
	}
	if j.expected != nil && j.expected.list[l.Index].isJudged {
		v.right = no
	}

	if !l.OK {
		return nil
	}

	return j.addAnswer(l, body)
}

// checkRequest checks that a line is of a request of the sample.
func (j *judge) checkRequest(l proto.Line) error {
	if l.Index < 0 || l.Index >= int64(len(j.verdicts.list)) {
		return fmt.Errorf("its request, %s, is not in the sample of %d requests", l.CustomID, len(j.verdicts.list))
	}

	customID, _, err := j.sample.request(l.Index)
	if err != nil {
		return err
	}

	if !jsonscan.SameText(customID, l.CustomID) {
		return fmt.Errorf("its request %d is %s, and in the sample %s it is %s", l.Index+1, l.CustomID, j.cfg.Sample,
			customID)
	}

	return nil
}

// wasAskedAgain reports whether a request was answered before, and its answer did not match the schema: it was another
// one or, with --more-tokens, cut off.
func wasAskedAgain(l proto.Line) bool {
	for reason := range bytes.SplitSeq(l.Retried, []byte{','}) {
		if string(reason) == proto.CodeSchemaMismatch || string(reason) == "length" {
			return true
		}
	}
	return false
}

// addAnswer judges an answer.
func (j *judge) addAnswer(l proto.Line, body []byte) error {
	o, err := openai.ReadOutput(&j.scan, body)
	if err != nil {
		return err
	}

	v := &j.verdicts.list[l.Index]
	text := o.Answer()
	if len(text) == 0 && o.Data != nil {
		if j.expected != nil || j.cfg.Scorer != nil {
			return fmt.Errorf("%w; there is nothing to compare with --expect or to score with --score", ErrNoText)
		}
		v.outcome = noText
		j.data++
		return nil
	}

	v.outcome = answered
	v.answer = normalize(text, j.verdicts.mode)
	if v.right == no {
		v.right = truthOf(j.expected.isRight(l.Index, text))
		if err := j.keepWrong(l, text); err != nil {
			return err
		}
	}

	j.texts++
	j.characters += utf8.RuneCount(text)
	if len(bytes.TrimSpace(text)) == 0 {
		j.empty++
	}

	return nil
}

// keepWrong keeps the first answer that is wrong, so that a person sees why.
func (j *judge) keepWrong(l proto.Line, text []byte) error {
	if j.wrong != nil || j.verdicts.list[l.Index].right == yes {
		return nil
	}

	expected, err := j.expected.text(l.Index)
	if err != nil || expected == nil {
		return err
	}

	j.wrong = &Wrong{
		CustomID: excerpt(jsonscan.Text(l.CustomID)),
		Expected: excerpt([]byte(*expected)),
		Text:     excerpt(text),
	}

	return nil
}

// normalize returns the form by which answers are the same.
func normalize(text []byte, m mode) form {
	trimmed := bytes.TrimSpace(text)
	switch m {
	case asNumber:
		if n, ok := findLastNumber(string(text)); ok {
			return formOf(asNumber, fmt.Appendf(nil, "%v", n))
		}
	case asJSON:
		if value, err := jsonscan.Canonical(trimmed); err == nil {
			return formOf(asJSON, value)
		}
	}

	return formOf(asText, trimmed)
}

// score has the scorer score the answers.
func (j *judge) score(ctx context.Context) error {
	var (
		indexes []int64
		readErr error
	)
	answers := func(yield func(Answer, error) bool) {
		indexes, readErr = j.yieldAnswers(ctx, yield)
	}

	scores, err := j.cfg.Scorer.Score(ctx, answers)
	switch {
	case readErr != nil:
		return readErr
	case err != nil:
		return fmt.Errorf("score the answers of %s: %w", j.cfg.Output.Results(), err)
	case len(indexes) != j.texts || len(scores) != j.texts:
		return fmt.Errorf("score the answers of %s: there are %d scores of %d answers", j.cfg.Output.Results(),
			len(scores), j.texts)
	}

	for i := range j.verdicts.list {
		if j.verdicts.list[i].outcome == failed {
			j.verdicts.list[i].score = 0
		}
	}

	for i, index := range indexes {
		if !(scores[i] >= 0 && scores[i] <= 1) {
			return fmt.Errorf("score the answers of %s: the score of request %d is %v, and not from 0 to 1",
				j.cfg.Output.Results(), index+1, scores[i])
		}
		j.verdicts.list[index].score = scores[i]
	}

	return nil
}

var errStopped = errors.New("no further answers are wanted")

// yieldAnswers yields the answers of the run, in the order of its output, and returns the indexes of their requests.
func (j *judge) yieldAnswers(ctx context.Context, yield func(Answer, error) bool) (indexes []int64, err error) {
	err = readLines(ctx, j.cfg.Output.Results(), func(l proto.Line, body []byte) error {
		a, err := j.readAnswer(l, body)
		if err != nil {
			return err
		}

		if !yield(a, nil) {
			return errStopped
		}
		indexes = append(indexes, l.Index)

		return nil
	})
	if errors.Is(err, errStopped) {
		return indexes, nil
	}
	if err != nil {
		yield(Answer{}, err)
	}

	return indexes, err
}

// readAnswer returns the answer of a line.
func (j *judge) readAnswer(l proto.Line, body []byte) (a Answer, err error) {
	o, err := openai.ReadOutput(&j.scan, body)
	if err != nil {
		return a, err
	}

	customID, request, err := j.sample.request(l.Index)
	if err != nil {
		return a, err
	}

	a = Answer{
		CustomID: string(jsonscan.Text(customID)),
		Request:  bytes.Clone(request),
		Text:     string(o.Answer()),
	}
	if j.expected != nil {
		a.Expected, err = j.expected.text(l.Index)
	}

	return a, err
}

// sumUp returns the quality of the run.
func (j *judge) sumUp() *Quality {
	q := &Quality{
		Wrong:      j.wrong,
		Empty:      j.empty,
		Data:       j.data,
		Characters: float64(j.characters) / float64(max(1, j.texts)),
	}

	var right, judged, matched int
	var scores sums
	for _, v := range j.verdicts.list {
		if v.outcome == notRun {
			continue
		}
		q.Requests++

		if v.right != unknown {
			judged++
		}
		if v.right == yes {
			right++
		}
		if v.matched == yes {
			matched++
		}
		if !math.IsNaN(v.score) {
			scores.add(v.score)
		}
	}

	if j.isJSON {
		q.Schema, q.SchemaAtOnce = NewShare(matched, q.Requests), NewShare(j.atOnce, q.Requests)
	}
	if j.expected != nil {
		q.Expected = NewShare(right, judged)
	}
	if j.cfg.Scorer != nil {
		q.Score = scores.score()
	}

	return q
}
