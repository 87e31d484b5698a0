package report

// buildWasted shows the work of the model servers whose results are not in the output.
func buildWasted(b *builder) Section {
	s := Section{ID: "wasted", Title: "Wasted work", Form: FormPairs, Columns: newColumns("")}
	w := b.run.Results.Wasted
	if w == nil {
		return s
	}

	if w.TokenShare != nil {
		s.addRow("Output tokens that are not in the results", percentCell(*w.TokenShare))
	}

	if w.TimeShare != nil {
		s.addRow("Time of attempts that were thrown away", percentCell(*w.TimeShare))
	}

	if w.DiscardedAttempts > 0 {
		cell := countCell(w.DiscardedAttempts)
		cell.Text += " (" + formatDuration(w.DiscardedSeconds)
		if w.DiscardedTokens > 0 {
			cell.Text += ", " + formatPlural(w.DiscardedTokens, "output token")
		}
		cell.Text += ")"
		s.addRow("Attempts that were thrown away", cell)
	}

	if w.RepeatedRequests > 0 {
		s.addRow("Requests sent again after a worker died", countCell(w.RepeatedRequests))
	}

	if w.DuplicateTokens > 0 {
		s.addRow("Output tokens of duplicate answers", countCell(w.DuplicateTokens))
	}

	if n := w.CutOffAnswers; n > 0 {
		cell := countCell(n)
		if all := int64(b.run.Results.SuccessCount); all >= n {
			cell.Text += " (" + formatShare(n, all) + " of the answers)"
		}
		s.addRow("Answers cut off at their token limit", cell)
	}

	return s
}

// percentCell is the cell of a fraction, in percent.
func percentCell(fraction float64) Cell {
	return Cell{Text: formatFraction(fraction), Value: new(100 * fraction)}
}
