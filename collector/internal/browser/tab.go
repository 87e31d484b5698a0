// Package browser shows pages in a real Chromium, for tests.
package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// Tab is a tab of a Chromium, and what its page complained about.
type Tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	faults   []string // errors of the console and of scripts
	requests []string // other than for the page
}

// Open starts a Chromium, and skips the test where there is none.
func Open(t *testing.T) *Tab {
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
	b := &Tab{t: t, ctx: ctx}
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

	Call(b, network.Enable, network.EnableParams{})
	Call(b, log.Enable, cdp.Empty{})
	Call(b, runtime.Enable, cdp.Empty{})

	return b
}

// Call sends a command whose result is of no interest.
func Call[P, R any](b *Tab, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatal(err)
	}
}

// listen notes what a page must not do.
func (b *Tab) listen(event any) {
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

// Run runs actions.
func (b *Tab) Run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// Show opens a page at a width.
func (b *Tab) Show(page string, width int64) {
	b.t.Helper()

	path := filepath.Join(b.t.TempDir(), "page.html")
	if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
		b.t.Fatal(err)
	}

	Call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width:             width,
		Height:            900,
		DeviceScaleFactor: 1,
		Mobile:            width < 500,
	})
	b.Run(chromedp.Navigate("file://" + path))
}

// SetScheme switches between light and dark.
func (b *Tab) SetScheme(scheme string) {
	b.t.Helper()
	Call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme},
	}})
	b.AwaitFrame()
}

// AwaitFrame waits until the browser has drawn once more.
func (b *Tab) AwaitFrame() {
	b.t.Helper()
	const twice = `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))`
	if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](twice, chromedp.EvalAwaitPromise)); err != nil {
		b.t.Fatal(err)
	}
}

// Ask returns the value of an expression.
func Ask[T any](b *Tab, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// Faults returns what the page has complained about since the last Check.
func (b *Tab) Faults() []string {
	b.mu.Lock()
	defer b.mu.Unlock()

	return slices.Clone(b.faults)
}

// Check fails if the page complained, or asked for anything.
func (b *Tab) Check(what string) {
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

// KeepPicture leaves a picture of the page with the artifacts of the test.
func (b *Tab) KeepPicture(name string, width int64, scheme string) {
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
