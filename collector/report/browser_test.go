package report

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// browser is a Chromium that these tests can start.
type browser struct {
	t    *testing.T
	path string
}

func findBrowser(t *testing.T) browser {
	t.Helper()

	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return browser{t, path}
		}
	}

	t.Skip("NOT TESTED: how the report looks. There is no Chromium here; Debian's package is called chromium")

	return browser{}
}

// open opens a file and returns what Chromium prints.
func (b browser) open(file string, args ...string) string {
	b.t.Helper()

	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()

	args = append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", "--no-first-run",
		"--user-data-dir=" + b.t.TempDir(),
	}, args...)

	cmd := exec.CommandContext(ctx, b.path, append(args, "file://"+file)...)
	var said bytes.Buffer
	cmd.Stderr = &said

	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("chromium: %v\n%s", err, said.String())
	}

	return string(out)
}

// framed is a page with others in frames of given widths: Chromium's own window cannot
// be as narrow as a phone.
func framed(t *testing.T, height int, frames ...frame) string {
	t.Helper()

	var b strings.Builder
	b.WriteString(
		`<!DOCTYPE html><style>body{margin:0;display:flex;align-items:start}iframe{border:0;flex:none}</style>`,
	)

	for _, f := range frames {
		fmt.Fprintf(&b, `<iframe width="%d" height="%d" title="%s" srcdoc="%s"></iframe>`,
			f.width, height, f.name, html.EscapeString(f.page))
	}

	b.WriteString(`<pre id="found"></pre><script>onload = () => {
		for (const frame of document.querySelectorAll("iframe")) {
			const root = frame.contentDocument.documentElement
			document.getElementById("found").append(frame.title + " at " + root.clientWidth + " needs " + root.scrollWidth + " by " + root.scrollHeight + "\n")
		}
	}</script>`)

	path := filepath.Join(t.TempDir(), "framed.html")
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}

	return path
}

// frame is a page to be shown at a width.
type frame struct {
	name, page string
	width      int
}

var measured = regexp.MustCompile(`(\w+) at (\d+) needs (\d+) by (\d+)`)

func TestThePageFitsAPhoneAndADesk(t *testing.T) {
	t.Parallel()

	chromium := findBrowser(t)
	var frames []frame
	for _, name := range []string{"seed", "compare", "rich"} {
		page, err := os.ReadFile(filepath.Join("testdata", name+".report.html"))
		if err != nil {
			t.Fatal(err)
		}

		for _, width := range []int{360, 390, 1280} {
			frames = append(frames, frame{name, string(page), width})
		}
	}

	found := measured.FindAllStringSubmatch(chromium.open(framed(t, 400, frames...), "--dump-dom"), -1)
	if len(found) != len(frames) {
		t.Fatalf("Chromium did not measure the frames: %q", found)
	}

	height := 0
	for i, f := range found {
		if f[2] != fmt.Sprint(frames[i].width) || f[3] != f[2] {
			t.Errorf("%s, %d wide: the page overflows: it is shown at a width of %s and needs %s",
				frames[i].name, frames[i].width, f[2], f[3])
		}
		fmt.Sscan(f[4], &height)
	}

	path := filepath.Join(t.ArtifactDir(), "rich.png")
	narrow, wide := frames[len(frames)-2], frames[len(frames)-1]
	chromium.open(framed(t, height, narrow, wide), "--screenshot="+path,
		fmt.Sprintf("--window-size=%d,%d", narrow.width+wide.width, height))
	drawn(t, path, image.Rect(0, 0, narrow.width, height))
	drawn(t, path, image.Rect(narrow.width, 0, narrow.width+wide.width, height))
}

// drawn checks that there is something all over a part of a picture.
func drawn(t *testing.T, path string, in image.Rectangle) {
	t.Helper()

	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	picture, err := png.Decode(file)
	if err != nil {
		t.Fatal(err)
	}

	const parts = 4
	for i := range parts {
		strip := image.Rect(in.Min.X, in.Dy()*i/parts, in.Max.X, in.Dy()*(i+1)/parts)
		if n := marks(picture, strip); n < 200 {
			t.Errorf("%s is blank in %v: %d marks", path, strip, n)
		}
	}
}

// marks counts the points that differ from their neighbour on the left.
func marks(picture image.Image, in image.Rectangle) (n int) {
	for y := in.Min.Y; y < in.Max.Y; y++ {
		for x := in.Min.X + 1; x < in.Max.X; x++ {
			if picture.At(x, y) != picture.At(x-1, y) {
				n++
			}
		}
	}

	return n
}
