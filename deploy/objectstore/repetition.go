package objectstore

import "github.com/promptmill/promptmill/deploy/exit"

// maxPage is the largest page of a list of objects, in bytes.
const maxPage = 64 << 20

// repetition finds that a list of different texts repeats itself, as the pages of a store do that
// always names the same next page. It keeps one of them, and replaces it at ever longer distances
// (the algorithm of Brent), so that its memory does not grow with the list.
type repetition struct {
	// kept is one of the texts.
	kept string
	// count is the number of texts.
	count int
}

// hasBegun adds a text, and reports whether the list repeats itself.
func (r *repetition) hasBegun(text string) bool {
	if r.count > 0 && text == r.kept {
		return true
	}

	r.count++
	if r.count&(r.count-1) == 0 {
		r.kept = text
	}

	return false
}

// endlessList returns the error of a list that repeats itself.
func endlessList(name string) error {
	return exit.Usage("name each file", "%s: the list of the store repeats itself and does not end", name)
}
