package report

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
)

// noNotice is the reason of a worker that vanished.
const noNotice = "vanished without notice"

// buildDepartures lists the workers that left before the end of the run, and what that cost, if there
// are any.
func buildDepartures(b *builder) Section {
	s := Section{ID: "departures", Title: "Workers that left", Columns: []Column{
		{Name: "Worker"},
		{Name: "Why"},
		{Name: "Notice", Number: true},
		{Name: "Time used", Number: true},
		{Name: "Finished", Number: true},
		{Name: "Handed back", Number: true},
		{Name: "Thrown away", Number: true},
	}}

	for _, d := range b.run.Results.Departures {
		if d.NoticedAt == nil || d.Deadline == nil {
			s.AddRow(d.Worker, TextCell(noNotice), unknown, unknown, unknown, unknown, thrownAwayCell(d))
			continue
		}

		why := d.Reason
		if d.VanishedAt != nil {
			why += "; it vanished before it had left"
		}

		used := unknown
		if d.TimeUsed != nil {
			used = percentCell(*d.TimeUsed)
		}

		notice := d.Deadline.Sub(*d.NoticedAt).Seconds()
		s.AddRow(d.Worker, TextCell(why), FigureCell(&notice, figures.Duration), used,
			CountCell(d.Finished), CountCell(d.HandedBack), thrownAwayCell(d))
	}

	return s
}

// thrownAwayCell is the cell of the requests that were cancelled at the model server or lost there.
func thrownAwayCell(d metadata.Departure) Cell {
	cell := CountCell(d.ThrownAway + d.LostInFlight)
	switch {
	case d.VanishedAt != nil: // as of the last announcement
		cell.Text = "about " + cell.Text
	case d.ThrownAwaySeconds > 0:
		cell.Text += " (" + figures.Duration(d.ThrownAwaySeconds) + ")"
	}

	return cell
}

// concludeDepartures: workers left before the end.
func concludeDepartures(b *builder) string {
	asked, vanished, thrown, handedBack := int64(0), int64(0), int64(0), int64(0)
	for _, d := range b.run.Results.Departures {
		if d.VanishedAt != nil {
			vanished++
		} else {
			asked++
		}
		thrown += d.ThrownAway + d.LostInFlight
		handedBack += d.HandedBack
	}

	if asked+vanished == 0 {
		return ""
	}

	text := ""
	switch {
	case vanished == 0:
		text = figures.Plural(asked, "worker") + " left before the end after a notice"
	case asked == 0:
		text = figures.Plural(vanished, "worker") + " vanished before the end"
	default:
		text = fmt.Sprintf("%s left before the end after a notice, and %s vanished",
			figures.Plural(asked, "worker"), figures.Count(vanished))
	}

	if thrown == 0 {
		text += ": nothing was thrown away"
	} else {
		text += ": " + figures.Plural(thrown, "request") + " in flight had to be run again"
	}

	if handedBack > 0 {
		text += ", and " + figures.Plural(handedBack, "request") + " went to others at once"
	}

	return text + "."
}
