package sim

import (
	"slices"
	"strings"
	"time"
)

// Config configures a simulated server.
type Config struct {
	// Flavour is the kind of server that it simulates. Defaults to VLLM.
	Flavour Flavour
	// Models are the models that it serves. Defaults to any.
	Models []string

	// Slots is the number of requests that it answers at once; others wait. Defaults to 256.
	Slots int
	// Knee is the Knee of [EngineConfig]: the number of requests that run at full speed.
	// Defaults to all.
	Knee int
	// KV is the number of tokens that the cache holds, and a prompt with its answer may have.
	// Defaults to no bound, and a context of a million tokens.
	KV int
	// Queue is the number of requests that may wait; one more is refused. Defaults to no bound,
	// as always with llama.cpp.
	Queue int
	// Prefix is the number of tokens of prompts that it keeps, for requests that begin in the
	// same way; with llama.cpp, in the host's memory, beside each slot's last prompt; with
	// Ollama, each slot's last prompt alone. Defaults to none.
	Prefix int
	// Rate is the number of requests that per second a proxy in front of it lets through, and
	// RateBurst at once; more are refused. Defaults to any number.
	Rate float64

	// TTFT is the mean time to the first token, of a prompt of which nothing is cached.
	TTFT time.Duration
	// TPOT is the mean time for each further token.
	TPOT time.Duration
	// Spread is the spread of both times: 0.2 means 20 % more or less at most.
	Spread float64
	// Tokens is the mean length of a completion in tokens. Defaults to 100.
	Tokens int

	// Load is the time that it takes to load its model after New.
	Load time.Duration
	// MaxLoaded is the number of models that it can have loaded at once (llama.cpp's router,
	// Ollama, LM Studio). Defaults to all.
	MaxLoaded int
	// SwapTime is the time that it takes to load another one of these.
	SwapTime time.Duration

	// Metrics starts llama.cpp with --metrics. The others need nothing for theirs.
	Metrics bool
	// Pooling starts llama.cpp with --embeddings and --reranking. The others embed and rank
	// with any model.
	Pooling bool

	// Seed decides the answers, together with the prompts.
	Seed uint64
	// Faults are the faults of requests, with their probabilities.
	Faults Faults
	// FaultSeed and Seed decide which requests meet a fault; the answers follow from Seed alone.
	FaultSeed uint64

	// Poison is the text in a prompt that kills the server, as by [Server.Kill]. Defaults to none.
	Poison string
	// OnDeath is called when a prompt kills the server. It must not wait for requests to end.
	// Optional.
	OnDeath func()

	// OnExchange is called at the end of each request to the model, before the client can have
	// read the end of its answer. It is called by several goroutines at once. Optional.
	OnExchange func(Exchange)
}

// RateBurst is the number of requests that more than Config.Rate the proxy lets through once.
const RateBurst = 5

// setDefaults replaces the zero and the impossible values.
func (c *Config) setDefaults() {
	if c.Flavour == "" {
		c.Flavour = VLLM
	}
	if c.Flavour == LlamaCPP {
		c.Queue = 0
	}
	if c.Tokens <= 0 {
		c.Tokens = 100
	}
}

// swaps reports whether the server loads one model in the place of another.
func (c *Config) swaps() bool { return c.MaxLoaded > 0 }

// contextLength returns the number of tokens that a prompt and its answer may have.
func (c *Config) contextLength() int {
	if c.KV > 0 {
		return max(2, c.KV)
	}
	return 1 << 20
}

// modelName returns the name of the model where the server must name one.
func (c *Config) modelName() string {
	if len(c.Models) > 0 {
		return c.Models[0]
	}
	return "sim"
}

// servesModel reports whether a request may name a model. llama.cpp ignores the name.
func (c *Config) servesModel(model string) bool {
	return len(c.Models) == 0 || c.Flavour == LlamaCPP && !c.swaps() || slices.Contains(c.Models, model) ||
		c.Flavour == Ollama && !strings.Contains(model, ":") && slices.Contains(c.Models, model+":latest")
}

// fullName returns the server's own name of the model of a request.
func (c *Config) fullName(model string) string {
	if c.Flavour == Ollama && !slices.Contains(c.Models, model) {
		return model + ":latest"
	}
	return model
}

// fitContext cuts the answer to the context, and reports whether the request fits: if it asks
// for too many tokens, SGLang refuses it, and vLLM only if no prompt leaves room for them.
// Ollama also cuts the prompt.
func (c *Config) fitContext(p *plan, req request) bool {
	length := c.contextLength()
	switch c.Flavour {
	case Ollama:
		p.promptTokens = min(p.promptTokens, length-1)
	case LlamaCPP:
		if p.promptTokens >= length {
			return false
		}
	case VLLM:
		if p.promptTokens >= length || req.maxTokens > length {
			return false
		}
	case SGLang:
		if p.promptTokens+req.maxTokens >= length {
			return false
		}
	default:
		if p.promptTokens+max(1, req.maxTokens) > length {
			return false
		}
	}

	p.limitTokens(length - p.promptTokens)

	return true
}
