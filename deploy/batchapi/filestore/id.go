package filestore

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The prefixes of ids, as OpenAI's API has them.
const (
	filePrefix   = "file-"
	uploadPrefix = "upload_"
	partPrefix   = "part_"
)

// An id is a prefix, the time of its creation and random letters. Times have a fixed width, so
// ids of one kind sort by time. All letters are small, since some file systems do not distinguish
// capitals.
const (
	timeDigits    = 11 // microseconds since 1970 in base 36: enough until the year 6140
	randomLetters = 13 // 65 bits
	idLength      = timeDigits + randomLetters
)

// idSource makes ids.
type idSource struct {
	now func() time.Time

	// mu guards the fields below.
	mu   sync.Mutex
	last time.Time
}

// maxSlip limits how far ids may be ahead of the clock. A clock that was set back further is
// followed.
const maxSlip = time.Second

// next returns a new id and the time in it, in UTC and in whole microseconds. The ids of one
// source sort in the order of their creation, unless the clock is set back by more than maxSlip.
func (s *idSource) next(prefix string) (string, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()

	at := s.now().UTC().Truncate(time.Microsecond)
	if !at.After(s.last) && s.last.Sub(at) < maxSlip {
		at = s.last.Add(time.Microsecond)
	}

	s.last = at

	return prefix + formatTime(at) + strings.ToLower(rand.Text()[:randomLetters]), at
}

// formatTime returns the digits of a time.
func formatTime(at time.Time) string {
	digits := strconv.FormatInt(at.UnixMicro(), 36)
	return strings.Repeat("0", max(timeDigits-len(digits), 0)) + digits
}

// DeriveID returns the id of a file that is in no store: the same one for the same time and seed.
func DeriveID(at time.Time, seed string) string {
	sum := sha256.Sum256([]byte(seed))
	letters := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))

	return filePrefix + formatTime(at) + letters[:randomLetters]
}

// isID reports whether a text has the form of an id with the prefix.
func isID(prefix, text string) bool {
	digits, ok := strings.CutPrefix(text, prefix)
	if !ok || len(digits) != idLength {
		return false
	}

	return strings.Trim(digits, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}

// TimeOf returns the time at which a file was created, from its id alone: the file may be
// deleted. It reports false for a text that is no id of a file.
func TimeOf(id string) (time.Time, bool) {
	if !isID(filePrefix, id) {
		return time.Time{}, false
	}
	return timeOfID(filePrefix, id), true
}

// timeOfID returns the time at which a valid id was made.
func timeOfID(prefix, id string) time.Time {
	micros, _ := strconv.ParseInt(id[len(prefix):][:timeDigits], 36, 64)
	return time.UnixMicro(micros).UTC()
}
