package page_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/page"
	"github.com/promptmill/promptmill/proto"
)

// called returns what a function of a module of the page returns, with plain spaces.
func called(b *tab, module, call string) string {
	b.t.Helper()
	text := b.text(fmt.Sprintf("import('./assets/%s.js').then((m) => String(m.%s))", module, call))
	return strings.ReplaceAll(text, "\u00a0", " ")
}

func TestNumbersAreReadable(t *testing.T) {
	b := openTab(t, startBrowser(t), screen{390, false}, startCannedHead(t).url(), "#/")

	for _, c := range []struct{ call, want string }{
		{"formatCount(1234567)", "1,234,567"},
		{"formatCountOf(1, 'run')", "1 run"},
		{"formatCountOf(2000, 'run')", "2,000 runs"},
		{"formatRate(0)", "0"},
		{"formatRate(7.123)", "7.12"},
		{"formatRate(14.27)", "14.3"},
		{"formatRate(4390.4)", "4,390"},
		{"formatShare(0, 9)", "0%"},
		{"formatShare(0, 0)", "0%"},
		{"formatShare(1, 1000000)", "under 0.01%"},
		{"formatShare(12, 34211)", "0.04%"},
		{"formatShare(34211, 50000)", "68%"},
		{"formatShare(49999, 50000)", "99.9%"},
		{"formatShare(9, 9)", "100%"},
		{"formatBytes(1)", "1 byte"},
		{"formatBytes(1536)", "1.5 KiB"},
		{"formatBytes(380 * 2 ** 30)", "380 GiB"},
		{"formatSeconds(0.0042)", "4.2 ms"},
		{"formatSeconds(0.18)", "180 ms"},
		{"formatSeconds(12.4)", "12.4 s"},
		{"formatSeconds(125)", "2 min 5 s"},
		{"formatDuration(59.4)", "59 s"},
		{"formatDuration(7800)", "2 h 10 min"},
		{"formatDuration(14400)", "4 h"},
		{"formatDuration(100 * 3600)", "4 d 4 h"},
		{"formatAge(1.2)", "now"},
		{"formatAge(-3)", "now"},
		{"formatAge(12.9)", "12 s ago"},
		{"formatAge(47 * 3600)", "47 h ago"},
		{"formatAge(49 * 3600)", "2 d ago"},
		{"formatInterval(41, 63)", "41 to 63 s"},
		{"formatInterval(720, 900)", "12 to 15 min"},
		{"formatInterval(890, 905)", "15 min"},
		{"formatInterval(7200, 9000)", "2 to 2.5 h"},
		{"joinFew(['a', 'b', 'c'], 2)", "a, b and 1 more"},
		{"joinFew(['a', 'b'], 2)", "a, b"},
	} {
		if got := called(b, "format", c.call); got != c.want {
			t.Errorf("%s is %q, want %q", c.call, got, c.want)
		}
	}
}

func TestTheFirstSentenceAnswers(t *testing.T) {
	b := openTab(t, startBrowser(t), screen{390, false}, startCannedHead(t).url(), "#/")

	well := working("a")
	stuck := working("b")
	stuck.Label, stuck.Problem = "eval", "no worker serves llama-3"
	failing := working("c")
	failing.Label, failing.Progress.Done, failing.Progress.Failed = "eval", 1000, 30
	paused := working("d")
	paused.State = proto.StatePaused
	ended := working("e")
	ended.State = proto.StateCompleted
	ready := page.Worker{Name: "box-a", Ready: true}
	broken := page.Worker{Name: "box-b", Problem: "the model server does not answer"}

	for _, c := range []struct {
		runs    []page.Run
		workers []page.Worker
		want    string
	}{
		{nil, nil, "Nothing is running, no workers."},
		{[]page.Run{well, well, ended}, []page.Worker{ready, ready, ready}, "2 runs in progress, 3 workers, all well."},
		{[]page.Run{well, stuck}, []page.Worker{ready}, "eval is stuck: no worker serves llama-3."},
		{[]page.Run{stuck, stuck}, []page.Worker{broken}, "2 runs are stuck. eval: no worker serves llama-3."},
		{
			[]page.Run{well},
			[]page.Worker{ready, broken},
			"1 run in progress, 2 workers. Worker box-b: the model server does not answer.",
		},
		{[]page.Run{failing}, []page.Worker{ready}, "1 run in progress, 1 worker. 3.0% of the requests of eval have failed."},
		{[]page.Run{paused}, []page.Worker{ready}, "Nothing is running, 1 run paused, 1 worker."},
		{[]page.Run{ended}, []page.Worker{ready}, "Nothing is running, 1 worker."},
	} {
		overview := marshal(t, page.Overview{
			Runs:    append([]page.Run{}, c.runs...), // never null
			Workers: append([]page.Worker{}, c.workers...),
			Bus:     &page.Bus{},
		})
		if got := called(b, "health", "describeBus("+overview+").text"); got != c.want {
			t.Errorf("the answer is %q, want %q", got, c.want)
		}
	}
}

func TestARunIsAnsweredInASentence(t *testing.T) {
	b := openTab(t, startBrowser(t), screen{390, false}, startCannedHead(t).url(), "#/")

	run := func(change func(*page.Run)) page.Run {
		r := working("a")
		change(&r)
		return r
	}

	for _, c := range []struct {
		run  page.Run
		want string
	}{
		{run(func(r *page.Run) {}), "good: Healthy. 12 requests failed, mostly with context_length. Done in 17 to 22 min, "},
		{
			run(func(r *page.Run) { r.Progress.Failed, r.Progress.Remaining = 0, nil }),
			"good: Healthy. Nothing has failed. The time left is not known yet.",
		},
		{
			run(func(r *page.Run) { r.Progress.Failed, r.Failures = 3421, map[string]int64{"http_400": 3421} }),
			"bad: Working, but 10% of the requests fail, all with HTTP 400. Done in ",
		},
		{run(func(r *page.Run) { r.Problem = "no worker serves llama-3" }), "bad: Stuck: no worker serves llama-3."},
		{run(func(r *page.Run) { r.State = proto.StatePaused }), "calm: Paused with 15,789 requests left."},
		{
			run(func(r *page.Run) {
				r.State, r.Problem = proto.StatePaused, "stopped by --max-tokens; promptmill resume a"
			}),
			"calm: Paused with 15,789 requests left. Stopped by --max-tokens; promptmill resume a.",
		},
		{
			run(func(r *page.Run) {
				r.State, r.Progress.Done, r.Progress.Failed = proto.StateCompleted, 50_000, 0
				r.EndedAt = new(cannedAt)
			}),
			"good: Completed at CLOCK after 1 h: all 50,000 requests answered.",
		},
		{
			run(func(r *page.Run) { r.State, r.EndedAt = proto.StateCancelled, new(cannedAt) }),
			"calm: Cancelled at CLOCK after 1 h: 34,199 answered, 12 failed (0.04%), mostly with context_length, 15,789 not done.",
		},
		{
			run(func(r *page.Run) { r.State, r.Problem = proto.StateFailed, "refused: the input is empty" }),
			"bad: Refused: the input is empty.",
		},
	} {
		call := fmt.Sprintf("describeRun(%s, null, new Date(%d))", marshal(t, c.run), cannedAt.UnixMilli())
		got := called(b, "health", call+".tone") + ": " + called(b, "health", call+".text")
		if done := called(b, "health", call+".done"); done != "" {
			got += " " + done
		}

		// The clock is that of the viewer's time zone.
		clock := called(b, "format", fmt.Sprintf("formatClock(new Date(%d), new Date(%d))", cannedAt.UnixMilli(), cannedAt.UnixMilli()))
		if !strings.HasPrefix(got, strings.ReplaceAll(c.want, "CLOCK", clock)) {
			t.Errorf("the answer is %q, want %q", got, c.want)
		}
	}
}

// A run that stands still since another one has the workers says so, and is not called healthy.
func TestARunWaitsForOneOfHigherPriority(t *testing.T) {
	b := openTab(t, startBrowser(t), screen{390, false}, startCannedHead(t).url(), "#/")

	waiting, first := working("a"), working("b")
	waiting.Progress.RequestsPerS, first.Label, first.Priority = nil, "evals", 1
	describe := func(run, other page.Run) string {
		call := fmt.Sprintf("describeRun(%s, null, new Date(0), [%s])", marshal(t, run), marshal(t, other))
		return called(b, "health", call+".tone") + ": " + called(b, "health", call+".text")
	}

	if got, want := describe(waiting, first),
		"calm: Waiting: evals has a higher priority, so workers take its requests first."; got != want {
		t.Errorf("the answer is %q, want %q", got, want)
	}

	slower, elsewhere := first, first
	slower.Progress.RequestsPerS, elsewhere.Models = nil, []string{"another model"}
	for _, other := range []page.Run{slower, elsewhere, waiting} {
		if got := describe(waiting, other); strings.Contains(got, "Waiting") {
			t.Errorf("beside %+v the answer is %q", other, got)
		}
	}
	if got := describe(first, first); strings.Contains(got, "Waiting") {
		t.Errorf("a run that works: %q", got)
	}
}

// A worker is late when it has missed two announcements.
func TestALateWorkerIsMarked(t *testing.T) {
	b := openTab(t, startBrowser(t), screen{390, false}, startCannedHead(t).url(), "#/")

	for age, want := range map[time.Duration]string{3 * time.Second: "3 s ago false", 12 * time.Second: "12 s ago true"} {
		worker := marshal(t, page.Worker{HeardAt: cannedAt.Add(-age)})
		call := fmt.Sprintf("describeHeard(%s, new Date(%d))", worker, cannedAt.UnixMilli())
		if got := called(b, "health", call+".text") + " " + called(b, "health", call+".late"); got != want {
			t.Errorf("heard %s before: %q, want %q", age, got, want)
		}
	}
}

// A worker that was asked to leave says when and why, and is no problem.
func TestALeavingWorkerSaysWhenAndWhy(t *testing.T) {
	b := openTab(t, startBrowser(t), screen{390, false}, startCannedHead(t).url(), "#/workers")

	leaving := func(left time.Duration, reason string) page.Worker {
		return page.Worker{
			Name:      "box-c",
			Ready:     true,
			Departure: &page.Departure{Reason: reason, Deadline: cannedAt.Add(left)},
		}
	}
	for _, c := range []struct {
		worker page.Worker
		want   string
	}{
		{page.Worker{Ready: true}, ""},
		{leaving(98*time.Second, "SIGTERM"), "Leaving in 1 min 38 s, by CLOCK: SIGTERM."},
		{leaving(98*time.Second, ""), "Leaving in 1 min 38 s, by CLOCK."},
		{leaving(-time.Second, "SIGTERM"), "Leaving: its time ended at CLOCK: SIGTERM."},
	} {
		call := fmt.Sprintf("describeDeparture(%s, new Date(%d))", marshal(t, c.worker), cannedAt.UnixMilli())
		got := called(b, "health", call)
		if d := c.worker.Departure; d != nil {
			clock := called(b, "format", fmt.Sprintf("formatClockSeconds(new Date(%d))", d.Deadline.UnixMilli()))
			got = strings.Replace(got, clock, "CLOCK", 1)
		}
		if got != c.want {
			t.Errorf("the card says %q, want %q", got, c.want)
		}
	}

	stays, goes := page.Worker{Name: "box-a", Ready: true}, leaving(time.Minute, "SIGTERM")
	broken := page.Worker{Name: "box-b", Problem: "the model server does not answer"}
	for _, c := range []struct {
		workers []page.Worker
		want    string
	}{
		{[]page.Worker{stays, stays}, "2 workers, all ready: 0 requests in flight, 0 requests/s."},
		{[]page.Worker{stays, goes}, "2 workers, 1 of them leaving: 0 requests in flight, 0 requests/s."},
		{[]page.Worker{goes}, "1 worker, leaving: 0 requests in flight, 0 requests/s."},
		{[]page.Worker{goes, broken}, "1 of 2 workers has a problem: box-b."},
	} {
		if got := called(b, "workers", "describeWorkers("+marshal(t, c.workers)+").text"); got != c.want {
			t.Errorf("the answer is %q, want %q", got, c.want)
		}
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()

	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}

	return string(text)
}
