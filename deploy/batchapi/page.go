package batchapi

import (
	"cmp"
	"slices"
	"time"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
)

// cutPage returns the first objects of a list as a page.
func cutPage[T, O any](rest []T, id func(T) string, limit int, convert func(T) O) listObject[O] {
	page := listObject[O]{Object: "list", Data: []O{}, HasMore: len(rest) > limit}
	rest = rest[:min(limit, len(rest))]
	for _, o := range rest {
		page.Data = append(page.Data, convert(o))
	}

	if len(rest) > 0 {
		page.FirstID, page.LastID = new(id(rest[0])), new(id(rest[len(rest)-1]))
	}

	return page
}

// compareFiles orders files by their times, and those of one time by their ids.
func compareFiles(a, b filestore.File) int {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
}

// findFilesAfter returns where the part of a list begins that follows the file with the id after. A
// client that deletes files while it goes through the list gives the id of a deleted one. It reports
// false if there never was such a file, or if it belongs to another key.
func (s *server) findFilesAfter(x *exchange, all []filestore.File, after string, descending bool) (int, bool) {
	if after == "" {
		return 0, true
	}

	if at := slices.IndexFunc(all, func(f filestore.File) bool { return f.ID == after }); at >= 0 {
		return at + 1, true
	}

	if file, _, err := s.findAnyFile(after); err == nil && !x.sees(file.Owner) {
		return 0, false
	}

	deleted := filestore.File{ID: after}
	var known bool
	if deleted.CreatedAt, known = s.batches.OutputTime(after); !known {
		deleted.CreatedAt, known = filestore.TimeOf(after)
	}

	at := slices.IndexFunc(all, func(f filestore.File) bool {
		if descending {
			return compareFiles(f, deleted) < 0
		}
		return compareFiles(f, deleted) > 0
	})
	if at < 0 {
		at = len(all)
	}

	return at, known && deleted.CreatedAt.Before(time.Now().Add(time.Minute)) // others have no time in their ids
}
