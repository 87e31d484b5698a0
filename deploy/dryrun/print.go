package dryrun

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/deploy/terminal"
)

const (
	// maxDataURL is the number of bytes of the image in a text that are printed.
	maxDataURL = 40
	// maxBar is the number of cells of the longest bar.
	maxBar = 40
	// maxModels is the number of models that are listed.
	maxModels = 5
)

// PrintOptions say how a [Preview] is printed.
type PrintOptions struct {
	// MaxText is the most characters of a text in a request, behind which it is cut. Defaults
	// to all.
	MaxText int
	// Unit names what the input has: row or line. Required.
	Unit string
	// ShortName returns the name of a file for a person. Required.
	ShortName func(path string) string
}

// Print prints the examples, and then the counts and the histogram on less than a screen.
func (p *Preview) Print(w io.Writer, o PrintOptions) error {
	out := &bytes.Buffer{}
	for _, e := range p.Examples {
		terminal.Fprintf(out, "%s, %s %d of %s, %s:\n", e.CustomID, o.Unit, e.Line, o.ShortName(e.File),
			terminal.CountOf(e.Characters, "character"))
		fmt.Fprintf(out, "POST %s\n%s\n\n", e.URL, terminal.PrintableLines(string(formatBody(e.Body, o.MaxText))))
	}

	p.printCounts(out, o)
	_, err := w.Write(out.Bytes())

	return err
}

// printCounts prints the numbers of rows, requests and models, and the histogram.
func (p *Preview) printCounts(out io.Writer, o PrintOptions) {
	var names []string
	for _, file := range p.Files {
		names = append(names, o.ShortName(file))
	}

	terminal.Fprintf(out, "input     %s\n", terminal.JoinFew(names, maxModels))

	requests := terminal.CountOf(p.Requests, "request") + " of " + terminal.CountOf(p.Rows, o.Unit)
	if p.Invalid > 0 {
		requests += fmt.Sprintf(", of which %s cannot be sent and would fail", terminal.FormatCount(p.Invalid))
	}

	terminal.Fprintf(out, "requests  %s\n", requests)

	var models []string
	for _, name := range slices.Sorted(maps.Keys(p.Models)) {
		models = append(models, fmt.Sprintf("%s (%s)", name, terminal.FormatCount(p.Models[name])))
	}

	if len(models) > 0 {
		terminal.Fprintf(out, "models    %s\n", terminal.JoinFew(models, maxModels))
	}

	if p.Prompts.Requests == 0 {
		return
	}

	l := p.Prompts
	terminal.Fprintf(out, "prompts   %s to %s characters, %s on average, %s in all\n",
		terminal.FormatCount(l.Shortest), terminal.FormatCount(l.Longest),
		terminal.FormatCount(l.Characters/int64(l.Requests)), terminal.FormatCount(l.Characters))

	printHistogram(out, l.Buckets())
}

// printHistogram prints a line for each bucket.
func printHistogram(out io.Writer, buckets []Bucket) {
	most, wide := 0, 0
	ranges := make([]string, len(buckets))
	for i, b := range buckets {
		ranges[i] = terminal.FormatCount(b.From) + "-" + terminal.FormatCount(b.To)
		most, wide = max(most, b.Requests), max(wide, len(ranges[i]))
	}

	for i, b := range buckets {
		bar := (b.Requests*maxBar + most - 1) / most // a bucket that has one is seen
		line := fmt.Sprintf("%*s  %*s  %s", wide+2, ranges[i], len(terminal.FormatCount(most)),
			terminal.FormatCount(b.Requests), strings.Repeat("#", bar))
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
}

// formatBody returns a body on several lines. It cuts images, and texts of more than most
// characters. 0: no text is cut.
func formatBody(body []byte, most int) []byte {
	var out bytes.Buffer
	in := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true),
		jsontext.AllowInvalidUTF8(true))
	to := jsontext.NewEncoder(&out, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true),
		jsontext.WithIndent("  "))

	for {
		t, err := in.ReadToken()
		if err != nil {
			return bytes.TrimSpace(out.Bytes()) // the body has ended
		}

		if t.Kind() == '"' {
			t = jsontext.String(shortenText(t.String(), most))
		}

		if to.WriteToken(t) != nil {
			return body // not possible for the tokens of a body
		}
	}
}

// shortenText cuts an image, of which a person can read nothing, or a text of more than most
// characters. 0: no text is cut.
func shortenText(text string, most int) string {
	switch head, _, isData := strings.Cut(text[:min(len(text), maxDataURL)], ";base64,"); {
	case isData && strings.HasPrefix(head, "data:") && len(text) > 2*maxDataURL:
		return fmt.Sprintf("%s... and %s more", text[:maxDataURL], terminal.CountOf(len(text)-maxDataURL, "byte"))
	case most > 0:
		return cutText(text, most)
	}
	return text
}

// cutText returns the first characters of a text, and the number of the others.
func cutText(text string, most int) string {
	n := utf8.RuneCountInString(text)
	if n <= most {
		return text
	}

	end := 0
	for range most {
		_, size := utf8.DecodeRuneInString(text[end:])
		end += size
	}

	return fmt.Sprintf("%s... and %s more", text[:end], terminal.CountOf(n-most, "character"))
}
