// Package openai reads the answers of servers with an OpenAI API, and counts in requests: the model
// that answered, the finish reason, the token usage, the text, and whether the answer is whole.
// It knows the dialects of vLLM, SGLang, llama.cpp, TEI, Ollama and of gateways, and decodes no
// more than its caller needs.
//
// [ReadAnswer] is for the worker, which takes an answer or runs the request again. [ScanAnswer]
// reads a part of the same, at a fraction of the cost, out of an output line: for the collector
// and readers of results (proto.ParseLine). Both are one reader, so that an accepted answer
// has the same finish reason and the same tokens in its line.
package openai
