package openai

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// partCount is the number of parts of a whole answer to a request: choices, embeddings or scores.
type partCount struct {
	// least and most are 0 if they are not known.
	least, most int
	indexed     bool
}

// NeedsRequest reports whether the number of parts of a whole answer depends on a request's body.
// Most requests are chats for one choice, whose body [ReadAnswer] does not need. Looking into a
// body is cheap soon after it was read, and not later.
func NeedsRequest(endpoint string, request []byte) bool {
	switch endpoint {
	case "/v1/responses":
		return false
	case "/v1/chat/completions":
		return containsN(request)
	}
	return len(request) > 0
}

// countParts reads from a request's body how many parts a whole answer has. Of a request in a
// form that is unknown, or that servers understand differently, nothing is known.
func countParts(s *jsonscan.Scanner, endpoint string, request []byte) partCount {
	if !NeedsRequest(endpoint, request) {
		return partCount{}
	}

	w := readSizes(s, request)
	if s.End() != nil {
		return partCount{}
	}

	switch endpoint {
	case "/v1/chat/completions":
		return partCount{least: w.n}
	case "/v1/completions":
		n := w.prompt * w.n
		return partCount{least: n, most: n}
	case "/v1/embeddings":
		return partCount{least: w.input, most: w.input, indexed: true}
	case "/v1/rerank":
		if w.documents <= 0 {
			return partCount{}
		}
		return partCount{least: min(w.documents, w.top), most: w.documents, indexed: true}
	case "/v1/score":
		n := w.pairs()
		return partCount{least: n, most: n, indexed: true}
	}

	return partCount{}
}

// containsN reports whether "n" stands in a request. bytes.Contains takes several times as long
// for a long prompt after the many quotation marks of its head.
func containsN(request []byte) bool {
	for {
		i := bytes.IndexByte(request, '"')
		if i < 0 || len(request) < i+3 {
			return false
		}

		if request[i+1] == 'n' && request[i+2] == '"' {
			return true
		}

		request = request[i+1:]
	}
}

// requestSizes are the numbers in a request: the number of texts of each kind, and of the
// answers to each. A member that is missing, or not understood, has 0.
type requestSizes struct {
	prompt, input, documents int
	// first and second are the two sides of a score; items is the number of SGLang's items.
	first, second, items int
	n, top               int
}

// readSizes reads the numbers in a request.
func readSizes(s *jsonscan.Scanner, request []byte) requestSizes {
	w := requestSizes{n: 1, top: math.MaxInt}
	embeds := false
	s.Reset(request)

	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "prompt":
			w.prompt = countTexts(s)
		case "prompt_embeds": // vLLM's, which come on top of the prompts
			embeds = s.Kind() != 'n'
		case "input":
			w.input = countTexts(s)
		case "documents": // which may be objects
			w.documents = countElements(s)
		case "text_1", "data_1", "queries":
			w.first = countTexts(s)
		case "text_2", "data_2":
			w.second = countTexts(s)
		case "items":
			w.items = countTexts(s)
		case "n":
			if s.Kind() != 'n' {
				w.n = readPositive(s)
			}
		case "top_n", "top_k":
			if s.Kind() != 'n' {
				w.top = min(w.top, max(1, readPositive(s)))
			}
		}
	}

	if embeds {
		w.prompt = 0
	}

	return w
}

// pairs is the number of scores: one text is compared with each of the other side, or each
// with its own (vLLM), or a query with all items (SGLang).
func (w requestSizes) pairs() int {
	if second := max(w.second, w.documents); w.first > 0 && second > 0 {
		return max(w.first, second)
	}
	return w.items
}

// countTexts reads a text, a list of texts, a list of tokens, or a list of such lists, and
// returns how many texts that are. A list of other things, or of several kinds, is for each
// server something else.
func countTexts(s *jsonscan.Scanner) (n int) {
	switch s.Kind() {
	case '"':
		s.Value()
		return 1
	case '[':
	default:
		s.Value()
		return 0
	}

	var kind byte
	mixed := false
	for s.EnterArray(); s.NextElement(); n++ {
		if n == 0 {
			kind = s.Kind()
		}
		mixed = mixed || s.Kind() != kind
	}

	switch {
	case mixed:
		return 0
	case kind == '0': // the tokens of one text
		return 1
	case kind == '"', kind == '[':
		return n
	}

	return 0
}

// countElements returns the number of elements of the next value, 0 if it is no array.
func countElements(s *jsonscan.Scanner) (n int) {
	if s.Kind() != '[' {
		s.Value()
		return 0
	}
	for s.EnterArray(); s.NextElement(); n++ {
	}
	return n
}

// readPositive reads a whole number above zero, 0 if it is something else.
func readPositive(s *jsonscan.Scanner) int {
	f, err := strconv.ParseFloat(string(s.Value()), 64)
	if err != nil || f != math.Trunc(f) || f < 1 || f > 1e6 {
		return 0
	}
	return int(f)
}

// findMismatch returns the fault in the number of a list's parts, "" if there is none.
func (c partCount) findMismatch(l itemList, name string) string {
	switch {
	case c.least <= 0:
		return ""
	case l.n < c.least, c.most > 0 && l.n > c.most:
		if c.least > 1 {
			name += "s"
		}
		return fmt.Sprintf("the request is for %d %s, and the answer has %d", c.least, name, l.n)
	case !c.indexed || len(l.indexes) == 0:
		return ""
	}

	slices.Sort(l.indexes)

	n := len(l.indexes)
	switch {
	case l.indexes[0] < 0 || l.indexes[n-1] >= c.most:
		return fmt.Sprintf("the answer has an index that none of the %d parts of the request has", c.most)
	case len(slices.Compact(l.indexes)) < n:
		return "the answer has an index twice"
	}

	return ""
}
