package dryrun

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// maxExamples is the number of requests that are kept.
const maxExamples = 3

// Preview describes the requests of an input. The zero value has none.
type Preview struct {
	// Files are the paths of the input files; - is standard input.
	Files []string `json:"files"`
	// Rows is the number of rows or lines of the input, of which the requests are chosen.
	Rows int `json:"rows"`
	// Requests is the number of requests.
	Requests int `json:"requests"`
	// Invalid is the number of requests that would fail, since they cannot be sent.
	Invalid int `json:"invalid"`
	// Models counts the requests of each model that would be sent.
	Models map[string]int `json:"models"`
	// Prompts has the lengths of the prompts.
	Prompts Lengths `json:"prompts"`
	// Examples are requests, in their order.
	Examples []Example `json:"examples"`

	// first are the first requests, and shortest and longest those with the shortest and
	// longest prompt.
	first             []Example
	shortest, longest Example
	counter           counter
}

// Example is a request as it would be sent.
type Example struct {
	// Index is the index of the request, from 0.
	Index uint32 `json:"index"`
	// CustomID is its custom_id.
	CustomID string `json:"custom_id"`
	// File is the path of its file, and Line the number of its row or line there, from 1.
	File string `json:"file"`
	Line int    `json:"line"`
	// Characters is the length of its prompt.
	Characters int `json:"characters"`
	// URL is the path of the endpoint, and Body the body.
	URL  string          `json:"url"`
	Body json.RawMessage `json:"body"`
}

// Add adds the next request. It keeps no part of it.
func (p *Preview) Add(item producer.Item) {
	p.Requests++
	if item.Err != nil {
		p.Invalid++
		return
	}

	if p.Models == nil {
		p.Models = map[string]int{}
	}

	p.Models[item.Model]++

	n := p.counter.count(item.Body)
	isFirst := len(p.first) < maxExamples
	isShortest := p.Prompts.Requests == 0 || n < p.shortest.Characters
	isLongest := p.Prompts.Requests == 0 || n > p.longest.Characters
	p.Prompts.add(n)

	if !isFirst && !isShortest && !isLongest {
		return
	}

	example := newExample(item, n)
	if isFirst {
		p.first = append(p.first, example)
	}
	if isShortest {
		p.shortest = example
	}
	if isLongest {
		p.longest = example
	}
}

// newExample copies a request.
func newExample(item producer.Item, characters int) Example {
	id, err := jsonscan.Unquote(item.CustomID)
	if err != nil { // not possible after parsing
		id = item.CustomID
	}

	return Example{
		Index:      item.Index,
		CustomID:   string(id),
		File:       item.File,
		Line:       item.Line,
		Characters: characters,
		URL:        item.URL,
		Body:       bytes.Clone(item.Body),
	}
}

// Finish chooses the examples when all requests are added: the first one, those with the
// shortest and the longest prompt, and others of the first where these are the same.
func (p *Preview) Finish() {
	if len(p.first) == 0 {
		return
	}

	for _, e := range slices.Concat(p.first[:1], []Example{p.shortest, p.longest}, p.first[1:]) {
		isChosen := func(other Example) bool { return other.Index == e.Index }
		if len(p.Examples) < maxExamples && !slices.ContainsFunc(p.Examples, isChosen) {
			p.Examples = append(p.Examples, e)
		}
	}

	slices.SortFunc(p.Examples, func(a, b Example) int { return cmp.Compare(a.Index, b.Index) })
}
