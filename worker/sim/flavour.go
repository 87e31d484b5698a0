package sim

// Flavour is a kind of model server.
type Flavour string

// The flavours. Plain is a server of which only /v1 is known.
const (
	VLLM     Flavour = "vllm"
	SGLang   Flavour = "sglang"
	LlamaCPP Flavour = "llama.cpp"
	Ollama   Flavour = "ollama"
	TensorRT Flavour = "tensorrt-llm"
	LMStudio Flavour = "lmstudio"
	Plain    Flavour = "plain"
)

// Flavours are all flavours.
var Flavours = []Flavour{VLLM, SGLang, LlamaCPP, Ollama, TensorRT, LMStudio, Plain}

// ListensWhileLoading reports whether such a server listens while it loads its model. One that
// does not resets all connections meanwhile, which is as near as a handler gets.
func (f Flavour) ListensWhileLoading() bool { return f == LlamaCPP || f == Ollama }

// SwapsModels reports whether such a server may have fewer models loaded than it lists.
func (f Flavour) SwapsModels() bool { return f == LlamaCPP || f == Ollama || f == LMStudio }

// jsonType returns the content type of its JSON.
func (f Flavour) jsonType() string {
	if f == LlamaCPP {
		return "application/json; charset=utf-8"
	}
	return "application/json"
}

// NameKind returns the kind of a model server for people. flavour and reported are the flavour and the
// version that the server reports. By its version, a simulated server is named as one.
func NameKind(flavour, reported string) string {
	if reported == version && flavour != "" {
		return "simulated " + flavour
	}
	return flavour
}
