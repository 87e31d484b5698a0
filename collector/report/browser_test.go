package report

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// tab is a tab of a Chromium, and what it complained about.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	faults   []string // errors of the console and of scripts
	requests []string // other than for the page
}

// openTab starts a Chromium.
func openTab(t *testing.T) *tab {
	t.Helper()

	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("needs chromium: how the report looks is not tested. Debian's package is called chromium")
	}

	allocator, end := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()),
		append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
			chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(time.Minute))...)
	t.Cleanup(end)

	ctx, _ := chromedp.NewContext(allocator)
	b := &tab{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal("start Chromium:", err)
	}

	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Error("end Chromium:", err)
		}
	})

	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}

	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, runtime.Enable, cdp.Empty{})

	return b
}

// call sends a command whose result is of no interest.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatal(err)
	}
}

// listen notes what a page must not do.
func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()

	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		fault := "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			fault += " " + e.ExceptionDetails.Exception.Description
		}
		b.faults = append(b.faults, fault)
	case *runtime.EventConsoleAPICalled:
		b.faults = append(b.faults, fmt.Sprintf("console.%s", e.Type))
	case *log.EventEntryAdded:
		b.faults = append(b.faults, e.Entry.Text)
	case *network.EventRequestWillBeSent:
		if e.Type != network.ResourceTypeDocument {
			b.requests = append(b.requests, e.Request.URL)
		}
	}
}

func (b *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// show opens a page at a width.
func (b *tab) show(page string, width int64) {
	b.t.Helper()

	path := filepath.Join(b.t.TempDir(), "page.html")
	if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
		b.t.Fatal(err)
	}

	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width:             width,
		Height:            900,
		DeviceScaleFactor: 1,
		Mobile:            width < 500,
	})
	b.run(chromedp.Navigate("file://" + path))
}

// setScheme switches between light and dark.
func (b *tab) setScheme(scheme string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme},
	}})
	b.awaitFrame()
}

// awaitFrame waits until the browser has drawn once more.
func (b *tab) awaitFrame() {
	b.t.Helper()
	const twice = `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))`
	if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](twice, chromedp.EvalAwaitPromise)); err != nil {
		b.t.Fatal(err)
	}
}

// ask returns the value of an expression.
func ask[T any](b *tab, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// check fails if the page complained, or asked for anything.
func (b *tab) check(what string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()

	if len(b.faults) > 0 {
		b.t.Errorf("%s: %q", what, b.faults)
	}
	if len(b.requests) > 0 {
		b.t.Errorf("%s: it asks for %q", what, b.requests)
	}
	b.faults, b.requests = nil, nil
}

// pages are reports of all kinds.
func pages(t *testing.T) map[string]string {
	t.Helper()

	foreign := fixture(t, "full")
	foreign.Model, foreign.TestID, foreign.Label = hostile, hostile, hostile
	foreign.Results.FailureDetails[0].Message, foreign.Results.FailureDetails[0].CustomID = hostile, hostile
	foreign.Workers[0].Name = hostile

	elsewhere := fixture(t, "other")
	elsewhere.Test.InputSHA256 = strings.Repeat("0", 64)

	prices := Options{Prices: Prices{In: new(0.15), Out: new(0.6), KWh: new(0.3), Currency: "EUR"}}
	list := map[string]string{}
	for name, r := range map[string]*Report{
		"full":    Build(fixture(t, "full"), prices),
		"long":    Build(long(t), Options{Baseline: golden(t, "baseline")}),
		"minimal": Build(golden(t, "seed"), Options{}),
		"foreign": Build(foreign, prices),
		"models":  Compare([]Named{{"a", fixture(t, "full")}, {"b", fixture(t, "other")}}, prices),
		"inputs":  Compare([]Named{{"a", foreign}, {"b", elsewhere}, {"c", golden(t, "baseline")}}, Options{}),
	} {
		_, list[name], _ = written(t, r)
	}

	return list
}

// layout is what a page says of itself.
type layout struct {
	Needs, Has int
	Clipped    []string // elements that are wider than the page
	Blank      []string // charts in which nothing is drawn
	Charts     int
}

const measureLayout = `(() => {
	const root = document.documentElement
	const clipped = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".plot") && !e.closest("thead") &&
		e.getBoundingClientRect().right > root.clientWidth + 0.5).map((e) => e.outerHTML.slice(0, 80))
	const blank = [...document.querySelectorAll(".plot")].filter((plot) => {
		const canvas = plot.querySelector("canvas")
		if (!canvas) return true
		const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true })
		copy.drawImage(canvas, 0, 0)
		const seen = new Uint32Array(copy.getImageData(0, 0, canvas.width, canvas.height).data.buffer)
		return new Set(seen).size < 4
	}).map((plot) => plot.id)
	return { Needs: root.scrollWidth, Has: root.clientWidth, Clipped: clipped.slice(0, 3), Blank: blank,
		Charts: document.querySelectorAll(".plot").length }
})()`

func TestThePageFitsAPhoneAndADesk(t *testing.T) {
	t.Parallel()

	b := openTab(t)
	charts := map[string]int{"full": 8, "long": 7, "models": 4, "foreign": 8, "inputs": 4}
	for name, page := range pages(t) {
		for _, width := range []int64{390, 768, 1280} {
			b.show(page, width)
			for _, scheme := range []string{"light", "dark"} {
				b.setScheme(scheme)
				what := fmt.Sprintf("%s, %d wide, %s", name, width, scheme)
				found := ask[layout](b, measureLayout)
				if found.Needs != found.Has || found.Has != int(width) || len(found.Clipped) > 0 {
					t.Errorf("%s: the page has %d and needs %d; clipped: %q", what, found.Has, found.Needs, found.Clipped)
				}

				if found.Charts != charts[name] || len(found.Blank) > 0 {
					t.Errorf("%s: %d charts, want %d; blank: %q", what, found.Charts, charts[name], found.Blank)
				}
				b.check(what)
				if name == "full" || name == "models" {
					b.keepPicture(name, width, scheme)
				}
			}
		}
	}
}

// keepPicture leaves a picture of the page with the artifacts of the test.
func (b *tab) keepPicture(name string, width int64, scheme string) {
	b.t.Helper()

	picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}

	path := filepath.Join(b.t.ArtifactDir(), fmt.Sprintf("%s-%d-%s.png", name, width, scheme))
	if err := os.WriteFile(path, picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// TestChartsZoom: a drag zooms all charts over time, and a double click shows all of it again.
func TestChartsZoom(t *testing.T) {
	t.Parallel()

	b := openTab(t)
	b.show(pages(t)["full"], 1280)

	hidden := func() bool { return ask[bool](b, `document.getElementById("reset").hidden`) }
	picture := func(id string) string {
		return ask[string](b, fmt.Sprintf(`document.querySelector("#chart-%s canvas").toDataURL()`, id))
	}
	await := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !is(); {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
			b.awaitFrame()
		}
	}

	if !hidden() {
		t.Error("the page begins zoomed")
	}

	whole := map[string]string{"output-rate": picture("output-rate"), "memory": picture("memory")}
	histogram := picture("latency-histogram")
	box := ask[struct{ X, Y, Width, Height float64 }](b, `(() => {
		const over = document.querySelector("#chart-output-rate .u-over")
		over.scrollIntoView({ block: "center" })
		const r = over.getBoundingClientRect()
		return { X: r.x, Y: r.y, Width: r.width, Height: r.height }
	})()`)
	at := func(kind input.DispatchMouseEventType, x float64) chromedp.Action[chromedp.Void] {
		return chromedp.MouseEvent(kind, box.X+x*box.Width, box.Y+box.Height/2, chromedp.ButtonLeft)
	}

	b.run(chromedp.MouseEvent(chromedp.MouseMoved, box.X+0.6*box.Width, box.Y+box.Height/2))
	await("the chart shows nothing at its cursor", func() bool {
		return strings.Contains(ask[string](b, `document.querySelector("#chart-output-rate").previousElementSibling.textContent`),
			"UTC): 1,")
	})

	b.run(at(chromedp.MousePressed, 0.1), at(chromedp.MouseMoved, 0.2), at(chromedp.MouseMoved, 0.5),
		at(chromedp.MouseReleased, 0.5))
	await("a drag does not zoom", func() bool { return !hidden() })
	await("the other charts do not follow", func() bool { return picture("memory") != whole["memory"] })
	if picture("latency-histogram") != histogram {
		t.Error("a drag over the time zooms a distribution")
	}

	b.run(chromedp.MouseClickXY(box.X+0.3*box.Width, box.Y+box.Height/2, chromedp.ClickCount(1)),
		chromedp.MouseClickXY(box.X+0.3*box.Width, box.Y+box.Height/2, chromedp.ClickCount(2)))
	await("a double click does not zoom out", hidden)
	await("the other charts stay zoomed", func() bool { return picture("memory") == whole["memory"] })

	b.run(chromedp.Focus(chromedp.CSS("#chart-output-rate")), chromedp.KeyEvent("+"))
	await("a key does not zoom", func() bool { return !hidden() })
	b.run(chromedp.Click(chromedp.CSS("#reset")))
	await("the button does not zoom out", hidden)
	b.check("zooming")
}

// TestChartsByTouch: one finger reads a chart, and two zoom it.
func TestChartsByTouch(t *testing.T) {
	t.Parallel()

	b := openTab(t)
	call(b, emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{
		Enabled:        true,
		MaxTouchPoints: 2,
	})
	b.show(pages(t)["full"], 390)

	box := ask[struct{ X, Y, Width, Height float64 }](b, `(() => {
		const over = document.querySelector("#chart-output-rate .u-over")
		over.scrollIntoView({ block: "center" })
		const r = over.getBoundingClientRect()
		return { X: r.x, Y: r.y, Width: r.width, Height: r.height }
	})()`)
	touch := func(kind input.DispatchTouchEventType, at ...float64) {
		t.Helper()
		points := []*input.TouchPoint{}
		for i, x := range at {
			points = append(points, &input.TouchPoint{
				X:  box.X + x*box.Width,
				Y:  box.Y + box.Height/2,
				ID: new(float64(i)),
			})
		}
		call(b, input.DispatchTouchEvent, input.DispatchTouchEventParams{Type: kind, TouchPoints: points})
		b.awaitFrame()
	}

	touch(input.DispatchTouchEventTypeTouchStart, 0.6)
	text := ask[string](b, `document.querySelector("#chart-output-rate").previousElementSibling.textContent`)
	if !strings.Contains(text, "UTC): 1,") {
		t.Errorf("a finger reads %q", text)
	}
	touch(input.DispatchTouchEventTypeTouchEnd)

	touch(input.DispatchTouchEventTypeTouchStart, 0.4)
	touch(input.DispatchTouchEventTypeTouchStart, 0.4, 0.6)
	touch(input.DispatchTouchEventTypeTouchMove, 0.2, 0.6)
	touch(input.DispatchTouchEventTypeTouchMove, 0.2, 0.8)

	if ask[bool](b, `document.getElementById("reset").hidden`) {
		t.Error("two fingers do not zoom")
	}
	b.check("touching")
}

// TestChartsFollowTheScheme: lines and bars have the colours of light and of dark.
func TestChartsFollowTheScheme(t *testing.T) {
	t.Parallel()

	b := openTab(t)
	b.setScheme("light")
	b.show(pages(t)["full"], 1280)

	for _, id := range []string{"output-rate", "failures", "latency-histogram"} {
		picture := func() string {
			return ask[string](b, fmt.Sprintf(`document.querySelector("#chart-%s canvas").toDataURL()`, id))
		}

		b.awaitFrame()
		light := picture()
		b.setScheme("dark")
		if dark := picture(); dark == light {
			t.Errorf("%s: the chart looks the same in the dark", id)
		}

		b.setScheme("light")
		if picture() != light {
			t.Errorf("%s: the chart keeps the colours of the dark", id)
		}
	}
}

// TestPartsFold: what is folded can be opened, and is printed.
func TestPartsFold(t *testing.T) {
	t.Parallel()

	b := openTab(t)
	b.show(pages(t)["full"], 1280)

	open := `document.querySelectorAll("details[open]").length`
	if n := ask[int](b, open); n != 0 {
		t.Errorf("%d parts are open at the start", n)
	}

	b.run(chromedp.Click(chromedp.CSS("#latency summary")))
	if !ask[bool](b, `document.querySelector("#latency table").checkVisibility()`) {
		t.Error("a click does not open a part")
	}

	ask[bool](b, `dispatchEvent(new Event("beforeprint"))`)
	if shown, all := ask[int](b, open), ask[int](b, `document.querySelectorAll("details").length`); shown != all || all < 8 {
		t.Errorf("of %d parts %d are printed", all, shown)
	}
	b.check("folding")
}

// TestForeignTextIsShownAsText: names full of markup are read as they are.
func TestForeignTextIsShownAsText(t *testing.T) {
	t.Parallel()

	b := openTab(t)
	list := pages(t)
	for _, name := range []string{"foreign", "inputs"} {
		b.show(list[name], 1280)
		if n := ask[int](b, `document.querySelectorAll("script").length`); n != 2 {
			t.Errorf("%s: %d scripts", name, n)
		}

		if n := ask[int](b, `document.querySelectorAll("b, i, img, a, iframe").length`); n != 0 {
			t.Errorf("%s: %d elements come from foreign text", name, n)
		}

		text := ask[string](b, `document.body.innerText`)
		if !strings.Contains(text, "</td><script>alert(1)</script>") || strings.ContainsRune(text, '\u202e') {
			t.Errorf("%s: the foreign text is not shown as it is", name)
		}
		b.check(name)
	}
}

// TestThePageWithoutScripts: all figures and tables are there.
func TestThePageWithoutScripts(t *testing.T) {
	t.Parallel()

	b := openTab(t)
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.show(pages(t)["full"], 390)

	text := ask[string](b, `document.body.innerText`)
	for _, want := range []string{
		"4,333 of 4,355 requests were answered", "1,410", "The charts need JavaScript", "ticket-00412", "mean 1,410",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("without JavaScript the page lacks %q", want)
		}
	}
}

// A script that is put into the page does not run.
func TestThePolicyIsKept(t *testing.T) {
	t.Parallel()

	b := openTab(t)
	b.show(strings.Replace(pages(t)["full"], "</main>", "<script>document.title = 'run'</script></main>", 1), 1280)

	if ask[string](b, "document.title") == "run" {
		t.Error("a script that is not ours ran")
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.faults) == 0 {
		t.Error("the browser did not refuse it")
	}
}

// TestChartData: the JSON in the page is that of the metadata.
func TestChartData(t *testing.T) {
	t.Parallel()

	run := fixture(t, "full")
	text, err := buildCharts(run).encode()
	if err != nil {
		t.Fatal(err)
	}

	var got chartSetInPage
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}

	if got.Start != run.Series.Start.Unix() || got.Step != 2 {
		t.Errorf("it begins at %d in steps of %g", got.Start, got.Step)
	}

	want := []span{{220, 280, spanInterrupted}, {500, 530, spanIdle}}
	if fmt.Sprint(got.Spans) != fmt.Sprint(want) {
		t.Errorf("its spans are %v, want %v", got.Spans, want)
	}

	first := got.Charts[0].Lines[0].Values
	if first[115] != nil || *first[20] != math.Round(float64(run.Series.CompletionTokens[20])/2) {
		t.Errorf("the tokens are %v and %v", first[115], *first[20])
	}
}

// chartSetInPage is what the script reads.
type chartSetInPage struct {
	Start  int64
	Step   float64
	Spans  []span
	Charts []struct {
		Lines []struct{ Values []*float64 }
	}
}
