package page_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is the longest wait for something on the page. It passes only if the page is broken.
const patience = 30 * time.Second

// startBrowser starts a Chromium without a window, which ends with the test.
func startBrowser(t *testing.T) context.Context {
	t.Helper()

	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Skip("NOT TESTED: the live page in a browser. There is no Chromium here; Debian's package is called chromium")
	}

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox,
		chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(patience))
	allocator, end := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(end)

	browser, _ := chromedp.NewContext(allocator)
	if err := chromedp.Do(browser); err != nil {
		t.Fatal("start Chromium:", err)
	}
	t.Cleanup(func() {
		if err := chromedp.Cancel(browser); err != nil {
			t.Error("end Chromium:", err)
		}
	})

	return browser
}

// screen is what a tab shows on.
type screen struct {
	width int64 // CSS pixels
	dark  bool
}

func (s screen) String() string {
	if s.dark {
		return fmt.Sprintf("%d dark", s.width)
	}
	return fmt.Sprintf("%d light", s.width)
}

// emulate has a tab shown on the screen, without motion.
func (s screen) emulate(ctx context.Context) error {
	scheme := "light"
	if s.dark {
		scheme = "dark"
	}

	return errors.Join(
		call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width:             s.width,
			Height:            844,
			DeviceScaleFactor: 1,
			Mobile:            s.width < 500,
		}),
		call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme},
			{Name: "prefers-reduced-motion", Value: "reduce"},
		}}),
	)
}

// screens are a phone, a tablet and a desk, light and dark.
var screens = []screen{{390, false}, {390, true}, {768, false}, {768, true}, {1280, false}, {1280, true}}

// tab is a tab of a browser that shows the live page.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu sync.Mutex
	// faults are what a page must not have: errors of its scripts, violations of its policy, requests to others.
	faults []string
}

// openTab opens the page of a head, at a view such as #/workers.
func openTab(t *testing.T, browser context.Context, on screen, url, view string) *tab {
	t.Helper()

	ctx, _ := chromedp.NewContext(browser)
	b := &tab{t: t, ctx: ctx}
	t.Cleanup(b.close)

	err := errors.Join(
		chromedp.Listen(ctx, func(event any) { b.note(event, url) }),
		call(ctx, network.Enable, network.EnableParams{}),
		call(ctx, log.Enable, cdp.Empty{}),
		call(ctx, runtime.Enable, cdp.Empty{}),
		on.emulate(ctx),
		chromedp.Do(ctx, chromedp.Navigate(url+view)),
	)
	if err != nil {
		t.Fatal(err)
	}

	return b
}

// show shows the tab on another screen.
func (b *tab) show(on screen) {
	b.t.Helper()

	if err := on.emulate(b.ctx); err != nil {
		b.t.Fatal(err)
	}
}

// call sends a command whose result is of no interest.
func call[P, R any](ctx context.Context, command cdp.Command[P, R], params P) error {
	_, err := chromedp.Call(ctx, command, params)
	return err
}

// close closes the tab, if it is open.
func (b *tab) close() {
	b.t.Helper()

	if b.ctx.Err() == nil {
		if err := chromedp.Cancel(b.ctx); err != nil {
			b.t.Error("close the tab:", err)
		}
	}
}

// note keeps an event that is a fault.
func (b *tab) note(event any, url string) {
	var fault string
	switch event := event.(type) {
	case *runtime.EventExceptionThrown:
		fault = "exception: " + event.ExceptionDetails.Text
		if e := event.ExceptionDetails.Exception; e != nil {
			fault += " " + e.Description
		}
	case *runtime.EventConsoleAPICalled:
		fault = fmt.Sprintf("console.%s", event.Type)
	case *log.EventEntryAdded: // such as a violation of the Content-Security-Policy
		if event.Entry.Level == log.EntryLevelError || event.Entry.Level == log.EntryLevelWarning {
			fault = fmt.Sprintf("log: %s %s", event.Entry.Text, event.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(event.Request.URL, url) {
			fault = "request to " + event.Request.URL
		}
	}

	if fault != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.faults = append(b.faults, fault)
	}
}

// requireNoFaults fails the test if the page has done what it must not.
func (b *tab) requireNoFaults() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()

	for _, f := range b.faults {
		b.t.Error(f)
	}
}

// do takes steps in the tab.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()

	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()

	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// run runs a script.
func (b *tab) run(script string) {
	b.t.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](script, chromedp.EvalAwaitPromise))
}

// value returns the value of an expression of JavaScript, which may be a promise.
func value[T any](b *tab, expression string) T {
	b.t.Helper()

	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()

	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}

	return v
}

// text returns the value of an expression that is a text.
func (b *tab) text(expression string) string {
	b.t.Helper()
	return value[string](b, expression)
}

// await waits until an expression is true. The page's policy forbids the polling that chromedp has.
func (b *tab) await(expression string) {
	b.t.Helper()

	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()

	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()

	for {
		if met, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")")); err == nil && met {
			return
		}

		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("the page never had %s; it shows:\n%s", expression, b.text("document.body.innerText"))
		}
	}
}

// awaitText waits until the page shows a text.
func (b *tab) awaitText(text string) {
	b.t.Helper()
	b.await("document.body.innerText.replaceAll('\u00a0', ' ').includes(" + quote(text) + ")")
}

// quote makes a literal of JavaScript of a text.
func quote(text string) string {
	literal, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(literal)
}
