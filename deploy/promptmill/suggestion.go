package main

import (
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/cmdline"
)

// suggestName asks whether the name that is most like a mistyped one was meant: "did you mean box7? ". It returns an
// empty text if none is like it.
func suggestName(typed string, known []string) string {
	return askWhether(cmdline.Suggest(typed, known))
}

// suggestRun asks whether one of the ids and labels of runs was meant: the first label with the
// name as a part, or else the id or the label that is most like it.
func suggestRun(name string, known []string) string {
	i := slices.IndexFunc(known, func(label string) bool {
		return len(name) > 2 && strings.Contains(strings.ToLower(label), strings.ToLower(name))
	})
	if i >= 0 {
		return askWhether(known[i])
	}
	return suggestName(name, known)
}

// askWhether asks whether a name was meant. It returns an empty text for none.
func askWhether(meant string) string {
	if meant == "" {
		return ""
	}
	return "did you mean " + report.ShellWords(meant) + "? "
}
