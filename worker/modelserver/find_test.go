package modelserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFind(t *testing.T) {
	t.Parallel()

	begin := func(h http.Handler) string {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		return server.URL
	}

	const gone = "http://127.0.0.1:1" // the port of a closed server may be that of the next one
	vllm := begin(newVLLM(t))
	webApp := begin(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html></html>")) }))
	loading := begin(&fake{header: "llama.cpp", replies: map[string]reply{"/v1/models": {503, llamaLoading}}})
	noPage := begin(http.NotFoundHandler())
	locked := begin(&fake{replies: map[string]reply{"/v1/models": {401, `{"error":"Unauthorized"}`}}})
	broken := begin(&fake{replies: map[string]reply{"/v1/models": {503, page404}}})
	ollama := begin(newOllama(t))

	servers, tried := probeURLs(t.Context(), "",
		[]string{webApp, vllm, gone, loading, noPage, locked, broken, ollama})
	var found []string
	for _, s := range servers {
		t.Cleanup(s.Close)
		found = append(found, s.URL())
	}

	if diff := cmp.Diff([]string{vllm, loading, ollama}, found); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}

	want := []string{
		"list models of " + webApp +
			": it answers text/html, not JSON: is it a model server?",
		gone,
		"list models of " + noPage + ": status 404 Not Found",
		"list models of " + locked + ": status 401 Unauthorized: it wants a key",
		broken,
	}
	if diff := cmp.Diff(want, tried); diff != "" {
		t.Errorf("tried (-want +got):\n%s", diff)
	}
}

// A port that accepts and sends nothing does not hold up the search.
func TestFindDoesNotHang(t *testing.T) {
	t.Parallel()

	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))

	t.Cleanup(silent.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()

	if found, tried := probeURLs(ctx, "", []string{silent.URL}); len(found) != 0 || len(tried) != 1 {
		t.Errorf("found %v, tried %v", found, tried)
	}
}

func TestUsualPorts(t *testing.T) {
	t.Parallel()
	for _, url := range defaultURLs {
		if s, err := New(url, ""); err != nil || s.URL() != url {
			t.Errorf("%s: %v", url, err)
		}
	}
}
