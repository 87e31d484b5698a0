package worker

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/worker/modelserver"
)

// refusalCase is an answer of a real server.
type refusalCase struct {
	Server  string
	Status  int
	Body    string
	Verdict string
	Fix     string // a part of it, should it be so for all
}

func readRefusalCases(t *testing.T) (list []refusalCase) {
	t.Helper()

	data, err := os.ReadFile("testdata/refusals.json")
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		t.Fatal(err)
	}

	return list
}

// Each refusal of a real server gets the right verdict.
func TestRulings(t *testing.T) {
	t.Parallel()

	verdicts := map[string]verdict{"final": final, "again": retry, "may mean all": barred, "loading": loading}
	for _, tt := range readRefusalCases(t) {
		t.Run(fmt.Sprint(tt.Server, " ", tt.Status), func(t *testing.T) {
			t.Parallel()

			want, ok := verdicts[tt.Verdict]
			c := classify("/v1/chat/completions", nil, modelserver.Answer{Status: tt.Status, Body: []byte(tt.Body)})
			if c.verdict != want || !ok {
				t.Errorf("%s: verdict %d, want %s", tt.Body, c.verdict, tt.Verdict)
			}

			if fix := newRefusedError("http://h", "/", c).Fix(); !strings.Contains(fix, tt.Fix) {
				t.Errorf("%s: the fix is %q, want %q in it", tt.Body, fix, tt.Fix)
			}
		})
	}
}

// Each ruling applies to an answer of a real server, and none hides another.
func TestRulingsApply(t *testing.T) {
	t.Parallel()

	all := readRefusalCases(t)
	for _, r := range rulings {
		applies := false
		for _, a := range all {
			got := findRuling(a.Status, []byte(a.Body))
			applies = applies || got.from == r.from && got.to == r.to && got.pattern == r.pattern
		}

		if !applies {
			t.Errorf("no answer is ruled by %d to %d, %v", r.from, r.to, r.pattern)
		}
	}
}

// Requests that do not fit together into llama.cpp's cache are an overload, and no crash.
func TestCrowdedCacheIsOverload(t *testing.T) {
	t.Parallel()

	for body, want := range map[string]bool{
		`{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}`: true,
		`{"error":{"code":500,"message":"Compute error.","type":"server_error"}}`:                  false,
	} {
		c := classify("/v1/chat/completions", nil, modelserver.Answer{Status: 500, Body: []byte(body)})
		if c.verdict != retry || c.overload != want || c.maybeCrash == want {
			t.Errorf("%s: verdict %d, overload %v, crash %v", body, c.verdict, c.overload, c.maybeCrash)
		}
	}
}
