package status

import (
	"strings"

	"github.com/promptmill/promptmill/proto"
)

// FindRuns returns the runs that a name means: the run with that id; or else those with that label;
// or else those with the name as a part of their id.
func FindRuns(runs []proto.Manifest, name string) []proto.Manifest {
	for _, means := range []func(proto.Manifest) bool{
		func(m proto.Manifest) bool { return m.Run == name },
		func(m proto.Manifest) bool { return m.Label == name },
		func(m proto.Manifest) bool { return strings.Contains(m.Run, name) },
	} {
		var found []proto.Manifest
		for _, m := range runs {
			if means(m) {
				found = append(found, m)
			}
		}

		if len(found) > 0 {
			return found
		}
	}

	return nil
}

// NearestName returns the id or the label of a run that a misspelt name is likely to mean, or "".
func NearestName(runs []proto.Manifest, name string) (nearest string) {
	least := max(2, len([]rune(name))/4) + 1
	for _, m := range runs {
		for _, known := range []string{m.Run, m.Label} {
			if known == "" {
				continue
			}

			if strings.EqualFold(known, name) || len(name) > 2 && containsFold(m.Label, name) && known == m.Label {
				return known
			}

			if d := editDistance(known, name); d < least && d < len([]rune(known)) {
				nearest, least = known, d
			}
		}
	}

	return nearest
}

// containsFold reports whether a text has a part, whatever their case.
func containsFold(text, part string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

// editDistance returns the number of characters to insert, delete or replace that make b of a
// (Levenshtein).
func editDistance(a, b string) int {
	from, to := []rune(a), []rune(b)
	row := make([]int, len(to)+1)
	for j := range row {
		row[j] = j
	}

	for i, x := range from {
		diagonal := row[0]
		row[0] = i + 1
		for j, y := range to {
			replaced := diagonal
			if x != y {
				replaced++
			}

			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}

	return row[len(to)]
}
