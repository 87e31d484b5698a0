// Package sim is a simulated model server: it answers as vLLM, SGLang, llama.cpp or
// Ollama does, with slots, a waiting queue, a cache that fills up, times to the first
// and to each further token, and faults on request. Its answers follow from the prompt
// and the seed, so that a test can tell the right one.
package sim
