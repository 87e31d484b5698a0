package report

import (
	"strings"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
)

// buildWasted shows the work of the model servers whose results are not in the output, if there was any.
func buildWasted(b *builder) Section {
	s := Section{ID: "wasted", Title: "Wasted work", Form: FormPairs, Columns: newColumns("")}
	w := b.run.Results.Wasted
	if w == nil {
		return s
	}

	if valueOrZero(w.TokenShare) > 0 {
		s.AddRow("Output tokens that are not in the results", lostTokensCell(b.run.Results))
	}

	if valueOrZero(w.TimeShare) > 0 {
		s.AddRow("Time of attempts that were thrown away", percentCell(*w.TimeShare))
	}

	if w.DiscardedAttempts > 0 {
		cell := CountCell(w.DiscardedAttempts)
		cell.Text += " (" + figures.Duration(w.DiscardedSeconds)
		if w.DiscardedTokens > 0 {
			cell.Text += ", " + figures.Plural(w.DiscardedTokens, "output token")
		}
		cell.Text += ")"
		s.AddRow("Attempts that were thrown away", cell)
	}

	if w.RepeatedRequests > 0 {
		cell := CountCell(w.RepeatedRequests) // without what the worker sent in its last second
		cell.Text = "at least " + cell.Text
		s.AddRow("Requests sent again after a worker died", cell)
	}

	if w.DuplicateTokens > 0 {
		s.AddRow("Output tokens of duplicate answers", CountCell(w.DuplicateTokens))
	}

	if n := w.CutOffAnswers; n > 0 {
		cell := CountCell(n)
		if all := int64(b.run.Results.SuccessCount); all >= n {
			cell.Text += " (" + figures.Share(n, all) + " of the answers)"
		}
		s.AddRow("Answers cut off at their token limit", cell)
	}

	return s
}

// lostTokensCell is the share of the output tokens that are not in the results. An attempt without an
// answer reports no tokens, and neither does a worker that died: the share is at least that.
func lostTokensCell(r metadata.Results) Cell {
	cell := percentCell(*r.Wasted.TokenShare)
	unreported := r.Wasted.RepeatedRequests
	for cause, n := range r.AttemptFailures {
		if !isRefusal(cause) {
			unreported += n
		}
	}

	if unreported > 0 {
		cell.Text = "at least " + cell.Text
	}

	return cell
}

// isRefusal reports whether a cause is a status of HTTP, for which a model server generates no tokens.
func isRefusal(cause string) bool { return strings.HasPrefix(DescribeCause(cause), "HTTP ") }

// percentCell is the cell of a fraction, in percent.
func percentCell(fraction float64) Cell {
	return Cell{Text: figures.Fraction(fraction), Value: new(100 * fraction)}
}
