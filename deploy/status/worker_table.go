package status

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// PrintWorkers prints a table of workers, and their problems. width is as for [PrintRuns].
func PrintWorkers(w io.Writer, workers []Worker, width int) error {
	if len(workers) == 0 {
		_, err := fmt.Fprintln(w, "no workers")
		return err
	}

	names := nameWorkers(workers)
	if err := newWorkerTable(workers, names).Print(w, width); err != nil {
		return err
	}

	for i, k := range workers {
		if k.isSilent() {
			terminal.Fprintf(w, "! %s: last heard %s; a worker reports every 3 s, and is gone after 15 s of silence\n",
				names[i], formatAgo(k.HeardAgoS))
		}

		if d := k.Departure; d != nil {
			terminal.Fprintf(w, "! %s: leaves by %s: %s\n", names[i], d.Deadline.Local().Format(time.TimeOnly),
				cmp.Or(d.Reason, "it was asked to"))
		}

		if k.Problem != "" {
			terminal.Fprintf(w, "! %s: %s\n", names[i], k.Problem)
		}

		if k.SeveralServers {
			terminal.Fprintf(w, "! %s: %s leads to more than one server; give each its own --url, so that each runs at full speed\n",
				names[i], k.Server)
		}
	}

	return nil
}

// nameWorkers returns the names of workers, which distinguish those of one name.
func nameWorkers(workers []Worker) []string {
	return proto.Labels(len(workers), func(i int) (name, id string) { return workers[i].Name, workers[i].ID })
}

// newWorkerTable returns the table of workers with some names.
func newWorkerTable(workers []Worker, names []string) terminal.Columns {
	cells := terminal.CellsOf(workers)

	t := terminal.Columns{
		{
			Head:  "WORKER",
			Cells: names,
			CutAt: 6,
			Least: 12,
		},
		{
			Head:    "STATE",
			Cells:   cells(formatWorkerState),
			BriefAt: 5,
			Brief:   cells(formatBriefState),
		},
		{Head: "IN FLIGHT", Cells: cells(func(k Worker) string {
			return terminal.FormatCount(k.InFlight) + "/" + terminal.FormatCount(k.Concurrency)
		})},
		{Head: "RATE", Cells: cells(func(k Worker) string { return formatRate(&k.PerSecond) })},
		{Head: "DONE", Cells: cells(func(k Worker) string { return terminal.FormatCount(k.Done) }), DropAt: 7},
		{
			Head:   "MODELS",
			Cells:  cells(formatModels),
			CutAt:  4,
			Least:  12,
			DropAt: 9,
		},
		{
			Head:   "HOST",
			Cells:  cells(func(k Worker) string { return cmp.Or(k.Host, unknown) }),
			CutAt:  6,
			Least:  8,
			DropAt: 8,
		},
		{Head: "GPU", Cells: cells(formatGPUs), DropAt: 3},
		{Head: "VERSION", Cells: cells(func(k Worker) string { return cmp.Or(k.Version, unknown) }), DropAt: 1},
		{Head: "SINCE", Cells: cells(formatStart), DropAt: 2},
	}
	if slices.ContainsFunc(workers, func(k Worker) bool { return k.Engines > 1 }) {
		t = append(t, terminal.Column{Head: "ENGINES", Cells: cells(formatEngines), DropAt: 4})
	}

	if slices.ContainsFunc(workers, Worker.isSilent) {
		heard := cells(func(k Worker) string { return formatAgo(k.HeardAgoS) })
		t = slices.Insert(t, 2, terminal.Column{Head: "HEARD", Cells: heard})
	}

	return t
}

func formatWorkerState(k Worker) string {
	switch {
	case !k.Ready:
		return "waiting for its model server"
	case k.Problem != "":
		return "has a problem"
	case k.Departure != nil:
		return "leaving"
	}

	return "ready"
}

func formatBriefState(k Worker) string {
	switch {
	case !k.Ready:
		return "waiting"
	case k.Problem != "":
		return "problem"
	case k.Departure != nil:
		return "leaving"
	}

	return "ready"
}

func formatModels(k Worker) string {
	if k.Models == nil {
		return "any"
	}
	return strings.TrimSpace(terminal.JoinFew(k.Models, 3))
}

func formatEngines(k Worker) string {
	if k.Engines == 0 {
		return unknown
	}
	return terminal.FormatCount(k.Engines)
}

func formatGPUs(k Worker) string {
	if len(k.GPU) == 0 {
		return unknown
	}
	return fmt.Sprintf("%d x %s", len(k.GPU), k.GPU[0].Name)
}

// formatStart returns how long ago a worker began. A worker of another program may not report it.
func formatStart(w Worker) string {
	if w.Since.IsZero() {
		return unknown
	}

	return terminal.FormatAge(time.Since(w.Since))
}
