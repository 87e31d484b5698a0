package producer

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/proto"
)

// A few different values of a parameter are kept, and none that is long: a run has few,
// or, as with seeds, one for each request.
const (
	maxValues     = 5
	maxValueBytes = 64
)

// isParameter reports whether a body's member of that name controls sampling or its length. The
// names are from the endpoints of OpenAI, vLLM, SGLang and llama.cpp.
func isParameter(name string) bool {
	switch name {
	case "temperature", "top_p", "top_k", "min_p", "n", "seed", "stop",
		"max_tokens", "max_completion_tokens", "max_output_tokens",
		"presence_penalty", "frequency_penalty", "repetition_penalty", "reasoning_effort":
		return true
	}
	return false
}

// noteParameter notes a sampling parameter of the body. Of one that is there twice the
// last counts, as it does for model servers.
func (p *Parser) noteParameter(name string, value []byte) {
	for i := range p.parameters {
		if p.parameters[i].name == name {
			p.parameters[i].value = value
			return
		}
	}
	p.parameters = append(p.parameters, member{name, value})
}

// parameters are the sampling parameters of the requests read so far. A request names a
// few: to look for them in a map took 4% of the time of validation.
type parameters []namedParameter

type namedParameter struct {
	name string
	proto.Parameter
}

// countRequest adds the sampling parameters of a request.
func (p *parameters) countRequest(sampling []member) {
	for _, m := range sampling {
		i := slices.IndexFunc(*p, func(n namedParameter) bool { return n.name == m.name })
		if i < 0 {
			i = len(*p)
			*p = append(*p, namedParameter{name: m.name})
		}

		found := &(*p)[i].Parameter
		found.Requests++
		if !found.More {
			addValue(found, m.value)
		}
	}
}

// byName returns the parameters in the form of the manifest; nil: none.
func (p parameters) byName() map[string]proto.Parameter {
	if len(p) == 0 {
		return nil
	}

	all := map[string]proto.Parameter{}
	for _, n := range p {
		all[n.name] = n.Parameter
	}

	return all
}

// addValue keeps a value that is a new one, if there is room.
func addValue(p *proto.Parameter, value []byte) {
	if hasValue(p.Values, value) {
		return
	}

	if len(value) <= maxValueBytes { // as it will be once it was JSON
		value = bytes.Clone(value)
		(*jsontext.Value)(&value).Compact() // its only error is broken JSON, refused already
	}

	switch {
	case hasValue(p.Values, value):
	case len(p.Values) == maxValues || len(value) > maxValueBytes:
		p.More = true
	default:
		p.Values = append(p.Values, value)
	}
}

func hasValue(values []json.RawMessage, value []byte) bool {
	return slices.ContainsFunc(values, func(v json.RawMessage) bool { return bytes.Equal(v, value) })
}
