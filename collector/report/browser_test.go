package report

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/promptmill/promptmill/collector/internal/browser"
)

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

func TestThePageFitsAPhoneAndADesk(t *testing.T) {
	t.Parallel()

	b := browser.Open(t)
	charts := map[string]int{"full": 8, "long": 7, "models": 4, "foreign": 8, "inputs": 4}
	for name, page := range pages(t) {
		for _, width := range []int64{390, 768, 1280} {
			b.Show(page, width)
			for _, scheme := range []string{"light", "dark"} {
				b.SetScheme(scheme)
				what := fmt.Sprintf("%s, %d wide, %s", name, width, scheme)
				found := b.MeasureLayout()
				if found.Needs != found.Has || found.Has != int(width) || len(found.Clipped) > 0 {
					t.Errorf("%s: the page has %d and needs %d; clipped: %q", what, found.Has, found.Needs, found.Clipped)
				}

				if found.Charts != charts[name] || len(found.Blank) > 0 {
					t.Errorf("%s: %d charts, want %d; blank: %q", what, found.Charts, charts[name], found.Blank)
				}
				b.Check(what)
				if name == "full" || name == "models" {
					b.KeepPicture(name, width, scheme)
				}
			}
		}
	}
}

// TestChartsZoom: a drag zooms all charts over time, and a double click shows all of it again.
func TestChartsZoom(t *testing.T) {
	t.Parallel()

	b := browser.Open(t)
	b.Show(pages(t)["full"], 1280)

	hidden := func() bool { return browser.Ask[bool](b, `document.getElementById("reset").hidden`) }
	picture := func(id string) string {
		return browser.Ask[string](b, fmt.Sprintf(`document.querySelector("#chart-%s canvas").toDataURL()`, id))
	}
	await := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !is(); {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
			b.AwaitFrame()
		}
	}

	if !hidden() {
		t.Error("the page begins zoomed")
	}

	whole := map[string]string{"output-rate": picture("output-rate"), "memory": picture("memory")}
	histogram := picture("latency-histogram")
	box := browser.Ask[struct{ X, Y, Width, Height float64 }](b, `(() => {
		const over = document.querySelector("#chart-output-rate .u-over")
		over.scrollIntoView({ block: "center" })
		const r = over.getBoundingClientRect()
		return { X: r.x, Y: r.y, Width: r.width, Height: r.height }
	})()`)
	at := func(kind input.DispatchMouseEventType, x float64) chromedp.Action[chromedp.Void] {
		return chromedp.MouseEvent(kind, box.X+x*box.Width, box.Y+box.Height/2, chromedp.ButtonLeft)
	}

	b.Run(chromedp.MouseEvent(chromedp.MouseMoved, box.X+0.6*box.Width, box.Y+box.Height/2))
	await("the chart shows nothing at its cursor", func() bool {
		return strings.Contains(browser.Ask[string](b, `document.querySelector("#chart-output-rate").previousElementSibling.textContent`),
			"UTC): 1,")
	})

	b.Run(at(chromedp.MousePressed, 0.1), at(chromedp.MouseMoved, 0.2), at(chromedp.MouseMoved, 0.5),
		at(chromedp.MouseReleased, 0.5))
	await("a drag does not zoom", func() bool { return !hidden() })
	await("the other charts do not follow", func() bool { return picture("memory") != whole["memory"] })
	if picture("latency-histogram") != histogram {
		t.Error("a drag over the time zooms a distribution")
	}

	b.Run(chromedp.MouseClickXY(box.X+0.3*box.Width, box.Y+box.Height/2, chromedp.ClickCount(1)),
		chromedp.MouseClickXY(box.X+0.3*box.Width, box.Y+box.Height/2, chromedp.ClickCount(2)))
	await("a double click does not zoom out", hidden)
	await("the other charts stay zoomed", func() bool { return picture("memory") == whole["memory"] })

	b.Run(chromedp.Focus(chromedp.CSS("#chart-output-rate")), chromedp.KeyEvent("+"))
	await("a key does not zoom", func() bool { return !hidden() })
	b.Run(chromedp.Click(chromedp.CSS("#reset")))
	await("the button does not zoom out", hidden)
	b.Check("zooming")
}

// TestChartsByTouch: one finger reads a chart, and two zoom it.
func TestChartsByTouch(t *testing.T) {
	t.Parallel()

	b := browser.Open(t)
	browser.Call(b, emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{
		Enabled:        true,
		MaxTouchPoints: 2,
	})
	b.Show(pages(t)["full"], 390)

	box := browser.Ask[struct{ X, Y, Width, Height float64 }](b, `(() => {
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
		browser.Call(b, input.DispatchTouchEvent, input.DispatchTouchEventParams{Type: kind, TouchPoints: points})
		b.AwaitFrame()
	}

	touch(input.DispatchTouchEventTypeTouchStart, 0.6)
	text := browser.Ask[string](b, `document.querySelector("#chart-output-rate").previousElementSibling.textContent`)
	if !strings.Contains(text, "UTC): 1,") {
		t.Errorf("a finger reads %q", text)
	}
	touch(input.DispatchTouchEventTypeTouchEnd)

	touch(input.DispatchTouchEventTypeTouchStart, 0.4)
	touch(input.DispatchTouchEventTypeTouchStart, 0.4, 0.6)
	touch(input.DispatchTouchEventTypeTouchMove, 0.2, 0.6)
	touch(input.DispatchTouchEventTypeTouchMove, 0.2, 0.8)

	if browser.Ask[bool](b, `document.getElementById("reset").hidden`) {
		t.Error("two fingers do not zoom")
	}
	b.Check("touching")
}

// TestChartsFollowTheScheme: lines and bars have the colours of light and of dark.
func TestChartsFollowTheScheme(t *testing.T) {
	t.Parallel()

	b := browser.Open(t)
	b.SetScheme("light")
	b.Show(pages(t)["full"], 1280)

	for _, id := range []string{"output-rate", "failures", "latency-histogram"} {
		picture := func() string {
			return browser.Ask[string](b, fmt.Sprintf(`document.querySelector("#chart-%s canvas").toDataURL()`, id))
		}

		b.AwaitFrame()
		light := picture()
		b.SetScheme("dark")
		if dark := picture(); dark == light {
			t.Errorf("%s: the chart looks the same in the dark", id)
		}

		b.SetScheme("light")
		if picture() != light {
			t.Errorf("%s: the chart keeps the colours of the dark", id)
		}
	}
}

// TestPartsFold: what is folded can be opened, and is printed.
func TestPartsFold(t *testing.T) {
	t.Parallel()

	b := browser.Open(t)
	b.Show(pages(t)["full"], 1280)

	open := `document.querySelectorAll("details[open]").length`
	if n := browser.Ask[int](b, open); n != 0 {
		t.Errorf("%d parts are open at the start", n)
	}

	b.Run(chromedp.Click(chromedp.CSS("#latency summary")))
	if !browser.Ask[bool](b, `document.querySelector("#latency table").checkVisibility()`) {
		t.Error("a click does not open a part")
	}

	browser.Ask[bool](b, `dispatchEvent(new Event("beforeprint"))`)
	if shown, all := browser.Ask[int](b, open), browser.Ask[int](b, `document.querySelectorAll("details").length`); shown != all || all < 8 {
		t.Errorf("of %d parts %d are printed", all, shown)
	}
	b.Check("folding")
}

// TestForeignTextIsShownAsText: names full of markup are read as they are.
func TestForeignTextIsShownAsText(t *testing.T) {
	t.Parallel()

	b := browser.Open(t)
	list := pages(t)
	for _, name := range []string{"foreign", "inputs"} {
		b.Show(list[name], 1280)
		if n := browser.Ask[int](b, `document.querySelectorAll("script").length`); n != 2 {
			t.Errorf("%s: %d scripts", name, n)
		}

		if n := browser.Ask[int](b, `document.querySelectorAll("b, i, img, a, iframe").length`); n != 0 {
			t.Errorf("%s: %d elements come from foreign text", name, n)
		}

		text := browser.Ask[string](b, `document.body.innerText`)
		if !strings.Contains(text, "</td><script>alert(1)</script>") || strings.ContainsRune(text, '\u202e') {
			t.Errorf("%s: the foreign text is not shown as it is", name)
		}
		b.Check(name)
	}
}

// TestThePageWithoutScripts: all figures and tables are there.
func TestThePageWithoutScripts(t *testing.T) {
	t.Parallel()

	b := browser.Open(t)
	browser.Call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.Show(pages(t)["full"], 390)

	text := browser.Ask[string](b, `document.body.innerText`)
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

	b := browser.Open(t)
	b.Show(strings.Replace(pages(t)["full"], "</main>", "<script>document.title = 'run'</script></main>", 1), 1280)

	if browser.Ask[string](b, "document.title") == "run" {
		t.Error("a script that is not ours ran")
	}

	if len(b.Faults()) == 0 {
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
