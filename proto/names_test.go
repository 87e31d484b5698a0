package proto

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestModelToken(t *testing.T) {
	t.Parallel()

	// What NATS allows in one token, and in a consumer's name.
	token := regexp.MustCompile(`^[A-Za-z0-9_-]{1,51}$`)
	long := strings.Repeat("x", 100)
	seen := map[string]string{}
	for _, model := range []string{
		"", "-", ".", "*", ">", "a b", "a-b", "a.b", "a/b", "a_b", "A-b", "a-b ", "org/Model-7B", "org-Model-7B",
		"модель", "модеЛь", long, long + "y", long + "z", "\x00", "\xff", "\ufffd",
	} {
		got := ModelToken(model)
		if !token.MatchString(got) {
			t.Errorf("ModelToken(%q) = %q is not a token", model, got)
		}

		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q have the same token %q", model, other, got)
		}

		seen[got] = model
		if got != ModelToken(model) {
			t.Errorf("ModelToken(%q) changes", model)
		}
	}

	if got := ModelToken("org/Model-7B"); !strings.HasPrefix(got, "org-Model-7B-") {
		t.Errorf("%q does not begin with the readable name", got)
	}
}

func TestCheckRunID(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, id string
		ok       bool
	}{
		{"letters, digits, dash and underline", "Nightly_2026-01", true},
		{"one letter", "a", true},
		{"the longest", strings.Repeat("a", MaxRunID), true},
		{"empty", "", false},
		{"one too long", strings.Repeat("a", MaxRunID+1), false},
		{"a dot would split the subject", "a.b", false},
		{"a star is a wildcard", "*", false},
		{"a greater-than sign is a wildcard", ">", false},
		{"white space", "a b", false},
		{"a slash", "../a", false},
		{"letters of other scripts", "läuft", false},
		{"a line feed", "a\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := CheckRunID(tt.id); (err == nil) != tt.ok {
				t.Errorf("CheckRunID(%q) = %v", tt.id, err)
			}
		})
	}
}

func TestCheckLabel(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		label, want string // the error; empty: none
	}{
		{"nightly", ""},
		{"größe: 27 B, λ → μ", ""},
		{strings.Repeat("x", MaxLabel), ""},
		{strings.Repeat("x", MaxLabel+1), "has 201 bytes, must have at most 200"},
		{"", "must have a character besides spaces"},
		{"  ", "must have a character besides spaces"},
		{" x", `" x" must not begin or end with a space`},
		{"x\n", `"x\n" must not begin or end with a space`},
		{"a\x1b[2Jb", `"a\x1b[2Jb" has a character that cannot be printed, '\x1b'`},
		{"a\u202eb", `"a\u202eb" has a character that cannot be printed, '\u202e'`},
		{"a\xff", `"a\xff" is not UTF-8`},
	} {
		got := ""
		if err := CheckLabel(tt.label); err != nil {
			got = err.Error()
		}

		if got != tt.want {
			t.Errorf("CheckLabel(%q) = %q, want %q", tt.label, got, tt.want)
		}
	}
}

func TestFindNamed(t *testing.T) {
	t.Parallel()

	runs := [][2]string{{"a-1", "nightly"}, {"a-2", "nightly"}, {"b-1", "a-2"}, {"nightly-3", ""}, {"b-2", "x"}}
	for name, want := range map[string][]int{
		"a-2":      {1}, // an id, though it is also a label
		"nightly":  {0, 1},
		"x":        {4},
		"ightly-3": {3},
		"nightly-": {3},
		"-3":       nil, // too short
		"ly-3":     {3},
		"ightl":    nil, // neither the beginning nor the end
		"nothing":  nil,
	} {
		var list [][2]string
		for _, i := range want {
			list = append(list, runs[i])
		}

		got := FindNamed(runs, name, func(run [2]string) (id, label string) { return run[0], run[1] })
		if !slices.Equal(got, list) {
			t.Errorf("%s means %v, want %v", name, got, list)
		}
	}
}

func TestNewRunID(t *testing.T) {
	t.Parallel()

	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("east", 3600))
	form := regexp.MustCompile(`^20260102-020405-[a-km-np-z2-9]{4}$`)
	seen := map[string]bool{}
	for range 100 {
		id := NewRunID(now)
		if !form.MatchString(id) || CheckRunID(id) != nil {
			t.Fatalf("run id %q", id)
		}
		seen[id] = true
	}

	if len(seen) < 95 { // one pair of a million is likely in 1 of 200 tests, five are not
		t.Errorf("100 run ids of one second are %d different ones", len(seen))
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()

	work := WorkSubject("r", "m", ShardID(1, 2))
	if want := "pm.r.work." + ModelToken("m") + ".1-2"; work != want {
		t.Errorf("work subject %s, want %s", work, want)
	}

	if got := ResultsSubject("r", "1-2"); got != "pm.r.results.1-2" {
		t.Errorf("results subject %s", got)
	}

	if got, want := WorkFilter("r", "m"), "pm.r.work."+ModelToken("m")+".*"; got != want {
		t.Errorf("filter %s, want %s", got, want)
	}
}
