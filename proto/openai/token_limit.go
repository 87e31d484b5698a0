package openai

import (
	"math"
	"strconv"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// maxExact is the end of the integers that many readers of JSON hold exactly.
const maxExact = 1 << 53

// RaiseTokenLimit returns a request's body with its limit of completion tokens multiplied by
// factor and rounded up, and every other byte as it was. The limits are max_tokens,
// max_completion_tokens and max_output_tokens, as many as are there with a whole number
// above zero. ok is false, and out is the body itself, if there is none, if the body is
// not one JSON object, or if factor is not a number above zero.
func RaiseTokenLimit(body []byte, factor float64) (out []byte, ok bool) {
	if !(factor > 0) {
		return body, false
	}

	var s jsonscan.Scanner
	s.Reset(body)

	from := 0
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "max_tokens", "max_completion_tokens", "max_output_tokens":
			raw := s.Value()
			n, err := strconv.ParseInt(string(raw), 10, 64) // no sign, no zeros before it: it is JSON
			more := math.Ceil(float64(n) * factor)
			if err != nil || n <= 0 || more > maxExact {
				continue
			}

			out = append(out, body[from:s.Offset()-len(raw)]...)
			out = strconv.AppendInt(out, int64(more), 10)
			from = s.Offset()
		}
	}

	if s.End() != nil || out == nil {
		return body, false
	}

	return append(out, body[from:]...), true
}
