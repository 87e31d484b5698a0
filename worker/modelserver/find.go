package modelserver

import (
	"context"
	"errors"
	"sync"
	"time"
)

// defaultURLs are the addresses where servers listen by default.
var defaultURLs = []string{
	"http://localhost:8000",  // vLLM, TensorRT-LLM, Dynamo
	"http://localhost:30000", // SGLang
	"http://localhost:8080",  // llama.cpp, llama-swap
	"http://localhost:9931",  // llama.cpp, as its next versions have it (ggml-org/llama.cpp#26508)
	"http://localhost:11434", // Ollama
	"http://localhost:1234",  // LM Studio
}

// findTimeout bounds the probes of the servers on this machine.
const findTimeout = 2 * time.Second

// Find probes the default ports of this machine for model servers. found has those that list
// models, or report that they load one, in the order of these ports. tried has an entry for
// each other port: why it is no model server, or only its URL if nothing answers. key is sent
// to all of them.
func Find(ctx context.Context, key string, options ...Option) (found []*Server, tried []string) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	return probeURLs(ctx, key, defaultURLs, options...)
}

// probeURLs is Find for a list of URLs.
func probeURLs(ctx context.Context, key string, urls []string, options ...Option) (found []*Server, tried []string) {
	servers, errs := make([]*Server, len(urls)), make([]error, len(urls))
	var probes sync.WaitGroup
	for i, url := range urls {
		probes.Go(func() {
			if servers[i], errs[i] = New(url, key, options...); errs[i] == nil {
				_, errs[i] = servers[i].Probe(ctx)
			}
		})
	}

	probes.Wait()
	for i, err := range errs {
		switch {
		case err == nil, errors.Is(err, ErrLoading):
			found = append(found, servers[i])
			continue
		case errors.Is(err, ErrUnreachable):
			tried = append(tried, urls[i])
		default:
			tried = append(tried, err.Error())
		}

		servers[i].Close()
	}

	return found, tried
}
