// Package modelserver talks to an OpenAI-compatible model server and knows its
// flavour: what a vLLM, SGLang, llama.cpp or Ollama tells beyond the common interface,
// which is above all how busy it is.
package modelserver
