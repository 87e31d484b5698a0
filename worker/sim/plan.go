package sim

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
)

// bytesPerToken is the number of bytes of a prompt that count as a token.
const bytesPerToken = 4

// words are the words of all answers.
var words = strings.Fields("billing refund login outage delivery invoice account password urgent question " +
	"the customer asks for help with an order that was late and wants to know when it arrives")

// plan is the content of an answer. It follows from the prompt and the seed.
type plan struct {
	hash                           uint64
	promptTokens, completionTokens int
	cachedTokens                   int             // of the prompt
	schema                         json.RawMessage // of a structured answer; nil if it is plain text
	cut                            bool            // the completion was cut by a limit
	showsCached                    bool            // the usage has cachedTokens
}

// planAnswer returns the answer to a request.
func (c *Config) planAnswer(r request) plan {
	h := fnv.New64a()
	h.Write(r.prompt)
	p := plan{hash: h.Sum64() ^ c.Seed, promptTokens: countTokens(r.prompt)}

	// Lengths spread evenly between half and one and a half of the mean.
	p.completionTokens = max(1, c.Tokens/2+int(p.hash%uint64(c.Tokens+1)))

	if r.format != nil {
		if p.schema = readSchema(r.format); p.schema != nil {
			p.completionTokens = countTokens([]byte(p.answerText()))
		}
	}

	if r.maxTokens > 0 {
		p.limitTokens(r.maxTokens)
	}

	return p
}

// countTokens returns the number of tokens of a prompt.
func countTokens(prompt []byte) int { return max(1, len(prompt)/bytesPerToken) }

// limitTokens cuts the answer to a number of tokens.
func (p *plan) limitTokens(tokens int) {
	if p.completionTokens >= tokens {
		p.completionTokens, p.cut = tokens, true
	}
}

// partPlan returns the plan of one part of the answer.
func (p plan) partPlan(i int) plan {
	p.hash += uint64(i)
	return p
}

// answerText returns the text of the answer, a word for each token, or JSON that matches the schema.
func (p plan) answerText() string {
	if p.schema != nil {
		a := schemaAnswer{root: p.schema, random: p.hash}
		a.appendValue(p.schema, 0)
		if p.cut {
			a.text = a.text[:min(len(a.text), p.completionTokens*bytesPerToken)]
		}
		return string(a.text)
	}

	var text strings.Builder
	text.WriteString(p.answerStart())

	for i, x := 0, p.hash; i < p.completionTokens-1; i++ {
		x = nextRandom(x)
		text.WriteByte(' ')
		text.WriteString(words[x>>33%uint64(len(words))])
	}

	return text.String()
}

// answerStart returns the beginning of an answer in plain text.
func (p plan) answerStart() string { return fmt.Sprintf("%016x", p.hash) }

// embedding returns the answer as an embedding.
func (p plan) embedding() []float32 {
	vector := make([]float32, 64)
	for i, x := 0, p.hash; i < len(vector); i++ {
		x = nextRandom(x)
		vector[i] = float32(int32(x>>32)) / (1 << 31)
	}
	return vector
}

// relevance returns the answer as a score from 0 to 1.
func (p plan) relevance() float64 { return float64(p.hash>>11) / (1 << 53) }

// nextRandom returns the number after x (Knuth's MMIX generator).
func nextRandom(x uint64) uint64 { return x*6364136223846793005 + 1442695040888963407 }
