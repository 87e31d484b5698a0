package page_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/promptmill/promptmill/deploy/page"
	"github.com/promptmill/promptmill/proto"
)

// view is a view of the page, with a text that stands there when all is shown.
type view struct {
	name, hash, text string
	charts           int
}

var views = []view{
	{"runs", "#/", "Ended", 0},
	{"a run that works", "#/runs/20261103-073000-k7f2", "Details and commands", 5},
	{"a run that is stuck", "#/runs/20261103-073100-b2aa", "Details and commands", 0},
	{"a run that has ended", "#/runs/20261102-201500-c3d4", "Median answer", 5},
	{"a run that is gone", "#/runs/none", "There is no run none on this bus.", 0},
	{"workers", "#/workers", "1 of 3 workers has a problem: box-b.", 0},
	{"the bus", "#/bus", "The bus is well", 0},
}

// chartsFit says that the charts have taken the width of their columns.
const chartsFit = `[...document.querySelectorAll(".plot:not(.none)")].every((p) => p.querySelector(".uplot").offsetWidth === p.clientWidth)`

// overflowing returns the elements that are wider than the page, which scrolls sideways then.
const overflowing = `[...document.body.querySelectorAll("*")]
	.filter((e) => !e.closest(".unseen, .skip, thead, pre") && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
	.map((e) => e.tagName + "." + e.className).join(", ") +
	(document.documentElement.scrollWidth > document.documentElement.clientWidth ? " scrolls" : "")`

func TestViewsFitEachScreen(t *testing.T) {
	browser := startBrowser(t)
	head := startCannedHead(t)
	head.fill()

	for _, v := range views {
		b := openTab(t, browser, screens[0], head.url(), v.hash)
		b.awaitText(v.text)

		for _, on := range screens {
			b.show(on)
			b.await(chartsFit)
			if wide := b.text(overflowing); wide != "" {
				t.Errorf("%s on %s is wider than the screen: %s", v.name, on, wide)
			}
		}

		if charts := value[int](b, "document.querySelectorAll('canvas').length"); charts != v.charts {
			t.Errorf("%s has %d charts, want %d", v.name, charts, v.charts)
		}
		b.requireNoFaults()
		b.close()
	}
}

// Fonts differ from machine to machine, and pixels with them. What a screenshot would show is compared as
// the places of the parts: which stand side by side, and in which order they come.
func TestThePartsOfARunHaveTheirPlaces(t *testing.T) {
	browser := startBrowser(t)
	head := startCannedHead(t)
	head.fill()

	for _, want := range []struct {
		width                     int64
		tiles, charts, histograms int // side by side
	}{
		{390, 2, 1, 1},
		{768, 3, 2, 3},
		{1280, 6, 2, 3},
	} {
		b := openTab(t, browser, screen{want.width, false}, head.url(), "#/runs/20261103-073000-k7f2")
		b.await("document.querySelectorAll('canvas').length === 5")

		for selector, n := range map[string]int{
			".tiles > div":                       want.tiles,
			".charts:not(.three) > :not(.wide)":  want.charts,
			".charts.three > .histogram":         want.histograms,
			".wide, .causes, .lines, .run-meter": 1,
			".answer, .end, .markers, .find":     1,
		} {
			columns := value[int](b, fmt.Sprintf(
				"new Set([...document.querySelectorAll(%s)].map((e) => Math.round(e.getBoundingClientRect().left))).size", quote(selector)))
			if columns != n {
				t.Errorf("%d: %s are in %d columns, want %d", want.width, selector, columns, n)
			}
		}

		order := b.text(`(() => {
			const parts = [".bar", "h1", ".answer", ".end", ".meter", ".actions", ".tiles", ".causes", ".charts", ".markers",
				".charts.three", ".lines", ".find", ".workers", "details"]
			const tops = parts.map((p) => document.querySelector("main " + p + ", body > " + p).getBoundingClientRect().top)
			return parts.filter((p, i) => i > 0 && tops[i] <= tops[i - 1]).join(", ")
		})()`)
		if order != "" {
			t.Errorf("%d: not below the part before: %s", want.width, order)
		}

		b.close()
	}
}

func TestViewsAreAccessible(t *testing.T) {
	axe, err := os.ReadFile(filepath.Join(os.Getenv("PROMPTMILL_TEST_NODE"), "node_modules/axe-core/axe.min.js"))
	if err != nil {
		t.Skip("NOT TESTED: accessibility. PROMPTMILL_TEST_NODE names no folder with axe-core; .ci/run makes it")
	}

	browser := startBrowser(t)
	head := startCannedHead(t)
	head.fill()
	locked := startCannedHead(t)
	locked.session = page.Session{KeyNeeded: true}

	check := func(url string, v view) {
		b := openTab(t, browser, screens[0], url, v.hash)
		defer b.close()
		b.awaitText(v.text)
		b.run(string(axe))

		for _, on := range []screen{{390, false}, {390, true}, {1280, false}, {1280, true}} {
			b.show(on)
			found := b.text(`axe.run(document).then(({violations}) => violations
				.filter((v) => ["serious", "critical"].includes(v.impact))
				.map((v) => v.id + ": " + v.help + ": " + v.nodes.map((n) => n.target + " " + n.failureSummary).join("; ")).join("\n"))`)
			if found != "" {
				t.Errorf("%s on %s:\n%s", v.name, on, found)
			}
		}
	}

	for _, v := range views {
		check(head.url(), v)
	}
	check(locked.url(), view{name: "the form for a key", hash: "#/", text: "Sign in"})
}

// markup is what must be shown as it is, wherever it stands, except for its last character: that one would turn around
// the text after it.
const markup = `<img src=x onerror="window.broken=1"><script>window.broken=2</script><b>&amp;` + "\u202e"

func TestMarkupStaysText(t *testing.T) {
	browser := startBrowser(t)
	head := startCannedHead(t)
	head.fill()
	head.found = fmt.Sprintf(`{"done":true,"state":"failed","text":%[1]s,"lines":[{"failed":true,"bytes":9,"line":{"custom_id":%[1]s,`+
		`"error":{"message":%[1]s}}}]}`+"\n", quote(markup))

	const id = "20261103-073000-k7f2"
	head.change(func() {
		r := &head.overview.Runs[0]
		r.Label, r.InputName, r.Models, r.Problem = markup, markup, []string{markup}, markup
		r.Failures = map[string]int64{markup: 1}

		w := &head.overview.Workers[0]
		w.Name, w.Host, w.Server, w.Platform, w.Problem = markup, markup, markup, markup, markup
		w.Models = []string{markup}
		w.GPUs[0].Name = markup
		w.Departure = &page.Departure{Reason: markup, Deadline: cannedAt}

		b := head.overview.Bus
		b.Name, b.Version, b.Cluster, b.Streams[0].Name, b.Streams[0].Run = markup, markup, markup, markup, markup
		b.Warnings = []string{markup}

		d := cannedDetail(*r)
		d.Note, d.Output, d.InputFiles, d.Markers[0].Text = markup, markup, []string{markup}, markup
		d.Results.FailureDetails[0].Cause, d.Results.FailureDetails[0].Message = markup, markup
		d.Results.FailureDetails[0].CustomID = markup
		d.LastFailures[0] = page.Failure{CustomID: markup, Cause: markup, Message: markup, Worker: markup}
		d.LastFailures[1].CustomID = strings.Repeat("long ", 2000)
		d.Commands = []page.Command{{Does: markup, Line: markup}}
		head.details[id] = d
	})

	for view, want := range map[string]int{"#/": 4, "#/runs/" + id: 18, "#/workers": 6, "#/bus": 4} {
		b := openTab(t, browser, screen{390, false}, head.url(), view)
		b.awaitText("onerror")

		if strings.HasPrefix(view, "#/runs/") {
			b.run("document.querySelector('#custom-id').value = 'ticket-1'; document.querySelector('.find').requestSubmit()")
			b.await("document.querySelectorAll('.found pre').length === 2")
		}

		if shown := value[int](b, "document.body.textContent.split('window.broken=2').length - 1"); shown < want {
			t.Errorf("%s shows the markup %d times, want at least %d:\n%s", view, shown, want, b.text("document.body.innerText"))
		}

		if made := b.text("[...document.querySelectorAll('main img, main script, h1 b, li b, pre b, [onerror]')].map((e) => e.outerHTML).join()"); made != "" {
			t.Errorf("%s: the markup has become elements: %s", view, made)
		}
		if broken := b.text("String(window.broken)"); broken != "undefined" {
			t.Errorf("%s: a script of the markup has run: %s", view, broken)
		}
		if b.text("String(/[\u202a-\u202e]/.test(document.body.textContent))") != "false" {
			t.Errorf("%s: the markup turns around the text after it", view)
		}
		if high := b.text("[...document.querySelectorAll('.link')].filter((e) => e.clientHeight > 80).map((e) => e.clientHeight).join()"); high != "" {
			t.Errorf("%s: a long custom_id is %s pixels high", view, high)
		}
		if wide := b.text(overflowing); wide != "" {
			t.Errorf("%s is wider than the screen: %s", view, wide)
		}
		b.requireNoFaults()
		b.close()
	}
}

func TestChartsMoveInPlace(t *testing.T) {
	browser := startBrowser(t)
	head := startCannedHead(t)
	head.fill()

	const id = "20261103-073000-k7f2"
	b := openTab(t, browser, screen{1280, false}, head.url(), "#/runs/"+id)
	b.await("document.querySelectorAll('canvas').length === 5")

	// What is typed, and what has the focus, stays while figures change.
	b.do(chromedp.SendKeys(chromedp.CSS("#custom-id"), "ticket"))
	b.run("window.canvas = document.querySelector('canvas'); window.field = document.activeElement")
	was := b.text("document.querySelector('.chart [role=img]').getAttribute('aria-label')")

	head.change(func() {
		d := head.details[id]
		d.Series = cannedSeries(500)
		d.Run.Progress.Done = 40_000
		head.details[id], head.overview.Runs[0] = d, d.Run
	})
	b.awaitText("40,000 of 50,000 requests, 80%")

	if now := b.text("document.querySelector('.chart [role=img]').getAttribute('aria-label')"); now == was {
		t.Errorf("the chart has not moved: %s", now)
	}

	if !value[bool](b, "canvas === document.querySelector('canvas') && field === document.activeElement && field.value === 'ticket'") {
		t.Error("the update has made the chart, or the field that is typed in, again")
	}
	b.requireNoFaults()
}

// A state that says the same costs the page nothing, and one run that moves touches only its own card: that is
// how a hundred runs stay fast.
func TestUpdatesTouchOnlyWhatChanged(t *testing.T) {
	browser := startBrowser(t)
	head := startCannedHead(t)
	head.fill()
	head.change(func() {
		for i := range 100 {
			head.overview.Runs = append(head.overview.Runs, working(fmt.Sprintf("20261103-08%04d-aaaa", i)))
		}
	})

	b := openTab(t, browser, screen{1280, false}, head.url(), "#/")
	b.await("document.querySelectorAll('.run').length === 103")
	b.run(`window.touched = new Set(); new MutationObserver((all) => all.forEach((m) => touched.add(
		(m.target.closest ? m.target : m.target.parentNode).closest(".run, header, #announcement, title")?.textContent.match(/-08\d+-/)?.[0] ?? "")))
		.observe(document.querySelector("main"), {subtree: true, childList: true, attributes: true, characterData: true})`)

	head.change(func() {})
	head.change(func() { head.overview.Runs[50].Progress.Done = 34_999 })
	b.await("[...document.querySelectorAll('.run')].some((r) => r.textContent.includes('-080047-') && r.querySelector('progress').value > 0.69)")

	if touched := b.text("[...touched].join()"); touched != "-080047-" {
		t.Errorf("the update has touched %q, want the run 47 alone", touched)
	}
}

func TestSearchShowsTheLine(t *testing.T) {
	browser := startBrowser(t)
	head := startCannedHead(t)
	head.fill()
	head.found = `{"done":false,"looked_bytes":1000,"total_bytes":2000}` + "\n" +
		`{"done":true,"state":"answered","text":"Answered by box-a.","looked_bytes":2000,"total_bytes":2000,"lines":[{"bytes":100,"line":` +
		`{"custom_id":"ticket-1","seed":9007199254740993123,"response":{"body":{"choices":[{"message":{"content":"Hello,\nworld"}}]}}}}]}` + "\n"

	b := openTab(t, browser, screen{390, false}, head.url(), "#/runs/20261103-073000-k7f2")
	b.awaitText("Find a request")
	b.do(chromedp.SendKeys(chromedp.CSS("#custom-id"), "ticket-1"+kb.Enter))
	b.awaitText("Answered by box-a.")

	if answer := b.text("document.querySelectorAll('.found pre')[0].textContent"); answer != "Hello,\nworld" {
		t.Errorf("the answer is shown as %q", answer)
	}

	// A number that JavaScript cannot hold is shown as it was written.
	if line := b.text("document.querySelectorAll('.found pre')[1].textContent"); !strings.Contains(line, `  "seed": 9007199254740993123,`) {
		t.Errorf("the line is shown as %s", line)
	}
	b.requireNoFaults()
}

func TestButtonsAreForThoseWhoMay(t *testing.T) {
	browser := startBrowser(t)
	head := startCannedHead(t)
	head.fill()
	const buttons = "[...document.querySelectorAll('.actions > button')].filter((b) => b.checkVisibility()).map((b) => b.textContent).join()"

	b := openTab(t, browser, screen{390, false}, head.url(), "#/runs/20261103-073000-k7f2")
	b.awaitText("Details and commands")
	if got := b.text(buttons); got != "Pause,Cancel…" {
		t.Errorf("the buttons are %s", got)
	}

	// Cancelling asks first, and the answer that a hasty Enter gives keeps the run.
	b.do(chromedp.Click(chromedp.CSS(".actions > .danger")))
	b.await("document.querySelector('dialog').open")
	b.do(chromedp.KeyEvent(kb.Enter))
	b.await("!document.querySelector('dialog').open")
	if len(head.posts) > 0 {
		t.Fatalf("the run was cancelled without a yes: %s", head.posts)
	}

	b.do(chromedp.Click(chromedp.CSS(".actions > .danger")), chromedp.Click(chromedp.CSS("dialog .danger")))
	b.awaitText("Done: cancel.")
	if want := []string{"/page/api/runs/20261103-073000-k7f2/cancel"}; !slices.Equal(head.posts, want) {
		t.Errorf("the requests were %s, want %s", head.posts, want)
	}
	b.requireNoFaults()

	head.change(func() { head.session.MayChange = false })
	b = openTab(t, browser, screen{390, false}, head.url(), "#/runs/20261103-073000-k7f2")
	b.awaitText("Details and commands")
	if got := b.text(buttons); got != "" {
		t.Errorf("a key that may only look has the buttons %s", got)
	}
}

func TestTheKeyboardReachesEverything(t *testing.T) {
	browser := startBrowser(t)
	head := startCannedHead(t)
	head.fill()

	for _, v := range views {
		b := openTab(t, browser, screen{1280, false}, head.url(), v.hash)
		b.awaitText(v.text)

		// Everything that can be clicked, in the order of the page.
		const all = `[...document.querySelectorAll("a, button, input, summary")].filter((e) => e.checkVisibility() && !e.disabled)`
		for i := range value[int](b, all+".length") {
			b.do(chromedp.KeyEvent(kb.Tab))
			fault := b.text(fmt.Sprintf(`(() => {
				const e = document.activeElement, wanted = %s[%d]
				if (e !== wanted) {
					return (wanted.id || wanted.textContent) + " is not reached, but " + (e.id || e.textContent)
				}
				const ring = [null, "::after"].some((part) => getComputedStyle(e, part).outlineStyle !== "none")
				return ring ? "" : (e.id || e.textContent) + " does not show its focus"
			})()`, all, i))
			if fault != "" {
				t.Errorf("%s, after %d times Tab: %s", v.name, i+1, fault)
				break
			}
		}
		b.close()
	}
}

func TestThePageComesBackWithItsHead(t *testing.T) {
	browser := startBrowser(t)
	head := startCannedHead(t)
	head.fill()

	b := openTab(t, browser, screen{390, false}, head.url(), "#/runs/20261103-073000-k7f2")
	b.await("document.querySelector('#connection').textContent === 'Live'")
	b.run("window.same = true")

	head.stop()
	b.awaitText("Reconnecting… Last update")
	b.awaitText("34,211 of 50,000 requests")

	head.change(func() {
		d := head.details["20261103-073000-k7f2"]
		d.Run.State, d.Run.Progress.Done, d.Run.EndedAt = proto.StateCompleted, 50_000, new(cannedAt)
		head.details["20261103-073000-k7f2"], head.overview.Runs[0] = d, d.Run
	})
	head.start()
	b.await("document.querySelector('#connection').textContent === 'Live'")
	b.awaitText("Completed at")

	if same := b.text("String(window.same)"); same != "true" {
		t.Error("the page was loaded again")
	}
}

func TestTheKeyIsAskedFor(t *testing.T) {
	browser := startBrowser(t)
	head := startCannedHead(t)
	head.fill()
	head.session = page.Session{KeyNeeded: true}

	b := openTab(t, browser, screen{390, false}, head.url(), "#/workers")
	b.await("document.activeElement.id === 'key'")
	b.do(chromedp.SendKeys(chromedp.CSS("#key"), "wrong"+kb.Enter))
	b.awaitText("This key is not known.")
	b.run("document.querySelector('#key').value = ''")
	b.do(chromedp.SendKeys(chromedp.CSS("#key"), "right"+kb.Enter))
	b.awaitText("1 of 3 workers has a problem: box-b.")
	b.await("document.querySelector('#sign-out').checkVisibility()")
}
