package cmdline

// Suggest returns the name that is most like a mistyped one, or an empty text if none is like it.
func Suggest(typed string, names []string) string {
	if len(typed) < 2 {
		return ""
	}

	best, distance := "", min(3, 1+len(typed)/4) // in a short name one letter is much
	for _, name := range names {
		if d := countEdits(typed, name); d < distance || d == distance && best == "" {
			best, distance = name, d
		}
	}

	return best
}

// countEdits returns how many letters must be inserted, deleted, replaced or swapped with their
// neighbour to make one text of the other: the optimal string alignment distance.
func countEdits(a, b string) int {
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}

	for i := 1; i <= len(a); i++ {
		before, above, row = above, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := above[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}

			row[j] = min(above[j]+1, row[j-1]+1, replaced)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}

	return row[len(b)]
}
