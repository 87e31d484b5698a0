package batch

import (
	"slices"
	"testing"
	"time"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

// TestDescribeNoModel ensures that a line without a model is refused with the way to name one.
func TestDescribeNoModel(t *testing.T) {
	line := producer.RefusedLine{
		Line:    1,
		Code:    "missing_required_parameter",
		Param:   "body.model",
		Message: (&producer.LineError{Fault: producer.FaultNoModel}).Error(),
	}

	got := describeLines(producer.Report{Count: 1, Lines: []producer.RefusedLine{line}})
	const want = "The line names no model; the batch's parameter model names one for all."
	if len(got) != 1 || got[0].Message != want || got[0].Param != "body.model" {
		t.Errorf("%+v", got)
	}
}

// An input may take minutes to read. An owner of many leaves a slot to others, and a file has one.
func TestTurns(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.paused, h.sim = true, nil
	h.start()

	create := func(owner, file string) string {
		q := request(file)
		q.Owner = owner
		return h.create(q).Run
	}

	next := func() string {
		r, _, _ := h.svc.beginSubmission(t.Context(), time.Now())
		if r == nil {
			return ""
		}
		return r.Run
	}

	var files []string
	for i := range 6 {
		files = append(files, h.upload(questions(i+1)))
	}

	greedy := []string{create("a", files[0]), create("a", files[1]), create("a", files[2])}
	other := create("b", files[3])
	none := []string{create("", files[4]), create("", files[4]), create("", files[5])}

	want := []string{greedy[0], greedy[1], other, none[0], none[2], ""}
	var got []string
	for range want {
		got = append(got, next())
	}
	if !slices.Equal(got, want) {
		t.Errorf("the turns are %q, want %q", got, want)
	}

	h.svc.endSubmission(greedy[0], nil)
	_, err := h.svc.change(greedy[0], func(now *record) error {
		now.State = proto.StateInProgress
		return nil
	})
	must(t, err)

	if run := next(); run != greedy[2] {
		t.Errorf("after the end of an attempt, the turn is that of %q, want %q", run, greedy[2])
	}
}
