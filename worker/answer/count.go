package answer

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// count is of how many parts a whole answer to a request is: choices, embeddings or scores.
type count struct {
	least, most int // 0: not known
	indexed     bool
}

// Counted reports whether it depends on a request's body of how many parts a whole answer is.
// Most requests are chats for one choice, of which the body need not be given to [Read]. To
// look at a body is cheap soon after it was read, and not later.
func Counted(endpoint string, request []byte) bool {
	switch endpoint {
	case "/v1/responses":
		return false
	case "/v1/chat/completions":
		return mayHaveN(request)
	}
	return len(request) > 0
}

// countOf reads out of a request's body what a whole answer has. Where the request has a form
// that is not known, or that servers understand differently, nothing is known.
func countOf(s *jsonscan.Scanner, endpoint string, request []byte) count {
	if !Counted(endpoint, request) {
		return count{}
	}

	w := readWanted(s, request)
	if s.End() != nil {
		return count{}
	}

	switch endpoint {
	case "/v1/chat/completions":
		return count{least: w.n}
	case "/v1/completions":
		n := w.prompt * w.n
		return count{least: n, most: n}
	case "/v1/embeddings":
		return count{least: w.input, most: w.input, indexed: true}
	case "/v1/rerank":
		if w.documents <= 0 {
			return count{}
		}
		return count{least: min(w.documents, w.top), most: w.documents, indexed: true}
	case "/v1/score":
		n := w.pairs()
		return count{least: n, most: n, indexed: true}
	}

	return count{}
}

// mayHaveN reports whether "n" stands in a request. bytes.Contains takes several times as long
// for a long prompt after the many quotation marks of its head.
func mayHaveN(request []byte) bool {
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

// wanted are the numbers in a request: how many texts there are of each kind, and how many
// answers to each. A member that is not there, or not understood, has 0.
type wanted struct {
	prompt, input, documents int
	first, second, items     int // of a score: the two sides, or what SGLang calls items
	n, top                   int
}

func readWanted(s *jsonscan.Scanner, request []byte) wanted {
	w := wanted{n: 1, top: math.MaxInt}
	embeds := false
	s.Reset(request)

	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "prompt":
			w.prompt = readTexts(s)
		case "prompt_embeds": // vLLM's, which come on top of the prompts
			embeds = s.Kind() != 'n'
		case "input":
			w.input = readTexts(s)
		case "documents": // which may be objects
			w.documents = readLength(s)
		case "text_1", "data_1", "queries":
			w.first = readTexts(s)
		case "text_2", "data_2":
			w.second = readTexts(s)
		case "items":
			w.items = readTexts(s)
		case "n":
			if s.Kind() != 'n' {
				w.n = readWhole(s)
			}
		case "top_n", "top_k":
			if s.Kind() != 'n' {
				w.top = min(w.top, max(1, readWhole(s)))
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
func (w wanted) pairs() int {
	if second := max(w.second, w.documents); w.first > 0 && second > 0 {
		return max(w.first, second)
	}
	return w.items
}

// readTexts reads a text, a list of texts, a list of tokens, or a list of such lists, and
// returns how many texts that are. A list of other things, or of several kinds, is for each
// server something else.
func readTexts(s *jsonscan.Scanner) (n int) {
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

// readLength returns how many elements the array has that comes next, 0 if it is none.
func readLength(s *jsonscan.Scanner) (n int) {
	if s.Kind() != '[' {
		s.Value()
		return 0
	}
	for s.EnterArray(); s.NextElement(); n++ {
	}
	return n
}

// readWhole reads a whole number above zero, 0 if it is something else.
func readWhole(s *jsonscan.Scanner) int {
	f, err := strconv.ParseFloat(string(s.Value()), 64)
	if err != nil || f != math.Trunc(f) || f < 1 || f > 1e6 {
		return 0
	}
	return int(f)
}

// compare says what of the parts is missing in a list, "" if nothing is.
func (c count) compare(l list, name string) string {
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
