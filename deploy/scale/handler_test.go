package scale

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestParseQuestion(t *testing.T) {
	t.Parallel()

	at := time.Date(2026, 7, 1, 6, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		query string
		want  Question
		err   string
	}{
		{query: "", want: Question{All: true}},
		{query: "model=", want: Question{}},
		{query: "model=Qwen/Qwen3-8B&max=20", want: Question{Model: "Qwen/Qwen3-8B", Max: 20}},
		{query: "model=m&within=8h", want: Question{Model: "m", Within: 8 * time.Hour}},
		{query: "model=m&within=1d12h", want: Question{Model: "m", Within: 36 * time.Hour}},
		{query: "model=a%26b&by=2026-07-01T06:00:00Z", want: Question{Model: "a&b", By: at}},
		{query: "by=2026-07-01T08:00:00+02:00", want: Question{All: true, By: at}},
		{query: "within=8", err: "within=8: want a time of more than 0 such as 8h or 2d"},
		{query: "within=-1h", err: "within=-1h: want a time of more than 0 such as 8h or 2d"},
		{query: "within=1h&by=2026-07-01T06:00:00Z", err: "within and by: give one of them"},
		{query: "by=06:00", err: "by=06:00: want a time such as 2026-07-01T06:00:00Z"},
		{query: "max=0", err: "max=0: want a number from 1 on"},
		{query: "max=many", err: "max=many: want a number from 1 on"},
		{query: "model=a&model=b", err: "model is given twice"},
		{query: "name=a", err: `"name" is no parameter: want model, within, by or max`},
		{query: "model=%zz", err: `the parameters cannot be read: invalid URL escape "%zz"`},
	} {
		got, err := ParseQuestion(tt.query)
		if fmt.Sprint(err) != fmt.Sprint(tt.err) && (err != nil || tt.err != "") {
			t.Errorf("%s: error %v, want %s", tt.query, err, tt.err)
		}

		got.By = got.By.UTC()
		if err == nil && got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.query, got, tt.want)
		}
	}
}

// A question that is accepted has a bound that can be used, and no two times.
func FuzzParseQuestion(f *testing.F) {
	for _, query := range []string{
		"",
		"model=m&within=8h&max=3",
		"by=2026-07-01T06:00:00Z",
		"model=%zz",
		"a;b=c",
		"max=-1",
	} {
		f.Add(query)
	}

	f.Fuzz(func(t *testing.T, query string) {
		q, err := ParseQuestion(query)
		if err == nil && (q.Within < 0 || q.Max < 0 || q.Within > 0 && !q.By.IsZero() || q.All && q.Model != "") {
			t.Errorf("%q: %+v", query, q)
		}
	})
}

// Every answer is JSON, and only one with a value has status 200.
func TestHandler(t *testing.T) {
	t.Parallel()

	errSilent := errors.New("the bus does not answer")
	for _, tt := range []struct {
		query  string
		err    error
		status int
		text   string
	}{
		{query: "model=m", status: http.StatusOK},
		{query: "max=x", status: http.StatusBadRequest, text: "max=x: want a number from 1 on"},
		{err: ErrNoBus, status: http.StatusNotFound, text: ErrNoBus.Error()},
		{err: errSilent, status: http.StatusServiceUnavailable, text: errSilent.Error()},
	} {
		handler := Handler(func(q Question) (Answer, error) { return Answer{Model: &q.Model, Value: 7}, tt.err })
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", Path+"?"+tt.query, nil))

		var got struct {
			Value *float64
			Error string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}

		if w.Code != tt.status || got.Error != tt.text || (got.Value != nil) != (tt.status == http.StatusOK) {
			t.Errorf("%s, %v: %d, %s", tt.query, tt.err, w.Code, w.Body)
		}
	}
}
