package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/promptmill/promptmill/worker/sim"
)

// pageTab is a tab of Chromium that shows the live page.
type pageTab struct {
	t   *testing.T
	ctx context.Context
}

// openTab opens a URL in a Chromium of its own.
func openTab(t *testing.T, url string) pageTab {
	t.Helper()

	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("NOT TESTED: the live page of a head that is killed. It needs chromium")
	}

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox,
		chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(patience))
	allocator, end := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(end)

	ctx, _ := chromedp.NewContext(allocator)
	must(t, chromedp.Do(ctx, chromedp.EmulateViewport(390, 844), chromedp.Navigate(url)))
	t.Cleanup(func() { must(t, chromedp.Cancel(ctx)) })

	return pageTab{t, ctx}
}

// text returns the value of an expression that is a text.
func (p pageTab) text(expression string) string {
	p.t.Helper()

	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()

	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](expression))
	must(p.t, err)

	return strings.ReplaceAll(text, "\u00a0", " ")
}

// await waits until the page shows a text.
func (p pageTab) await(text string) {
	p.t.Helper()

	deadline := time.Now().Add(patience)
	for !strings.Contains(p.text("document.body.innerText"), text) {
		if time.Now().After(deadline) {
			p.t.Fatalf("the page never showed %q, but:\n%s", text, p.text("document.body.innerText"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A viewer who has the page open sees the run go on when a killed head is started again.
func TestThePageOutlivesAKilledHead(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	m := newModel(t, sim.Config{Slots: 8, TTFT: 40 * time.Millisecond, Tokens: 5})
	address := lastingAddress(t)
	args := []string{
		"serve", "--page", address, "--listen", lastingAddress(t), "--advertise", "127.0.0.1", "--dir", ".",
		"--flush", "100ms",
	}

	serving, said := c.start(args...)
	poll(t, patience, "the page", func() bool { return strings.Contains(said.String(), "page: http://") })
	c.start("worker", "--url", m.url, "--concurrency", "8", "--join", strings.TrimSpace(c.must("join")))
	c.must("submit", c.input("in.jsonl", 4000), "--model", "sim", "--run", "watched", "--label", "<b>watched</b>")

	p := openTab(t, fmt.Sprintf("http://%s/#/runs/watched", address))
	p.await("<b>watched</b> (watched)")
	p.await("Output tokens per second") // the charts of the journal
	p.text("window.same = 'the same page'")

	must(t, serving.Process.Kill())
	serving.Wait()
	p.await("Reconnecting…")
	p.await("of 4,000 requests") // what was known stays readable

	c.start(args...)
	p.await("Completed at")
	p.await("all 4,000 requests answered")
	p.await("Live")
	if same := p.text("String(window.same)"); same != "the same page" {
		t.Error("the page was loaded again")
	}
}
