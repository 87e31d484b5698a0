package trial

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/promptmill/promptmill/collector/atomicfile"
)

// The ends of the names of the files of a trial.
const (
	HTMLSuffix     = ".trial.html"
	MarkdownSuffix = ".trial.md"
	JSONSuffix     = ".trial.json"
)

// WriteHTML writes the result as one page that needs nothing else.
func (r *Result) WriteHTML(w io.Writer) error { return r.Report().HTML(w) }

// WriteMarkdown writes the result as Markdown in GitHub's flavour.
func (r *Result) WriteMarkdown(w io.Writer) error { return r.Report().Markdown(w) }

// WriteJSON writes the result for a program. [ReadVariants] reads it.
func (r *Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)

	return e.Encode(r)
}

// WriteFiles writes the three forms as NAME.trial.html, NAME.trial.md and NAME.trial.json. Each file is replaced in one
// step, so that a reader never sees half of one.
func (r *Result) WriteFiles(name string) error {
	for _, form := range []struct {
		suffix string
		write  func(io.Writer) error
	}{
		{JSONSuffix, r.WriteJSON},
		{MarkdownSuffix, r.WriteMarkdown},
		{HTMLSuffix, r.WriteHTML},
	} {
		if err := writeFile(name+form.suffix, form.write); err != nil {
			return err
		}
	}

	return nil
}

func writeFile(path string, write func(io.Writer) error) error {
	file, err := atomicfile.Create(path, 0o666)
	if err != nil {
		return err
	}

	if err := file.Commit(write(file)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}

	return nil
}
