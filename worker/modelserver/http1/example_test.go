package http1_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/promptmill/promptmill/worker/modelserver/http1"
)

// A client posts JSON, and its caller keeps net/http for the requests that the client leaves to it.
func ExampleClient() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "posted to %s", r.URL)
	}))
	defer server.Close()

	u, err := url.Parse(server.URL)
	if err != nil {
		fmt.Println(err)
		return
	}

	client := http1.New(http1.Config{URL: u, MaxBody: 1 << 20})
	defer client.Close()

	body := []byte(`{"prompt":"Hello"}`)
	if !client.CanPost("/v1/completions", body) {
		fmt.Println("use net/http")
		return
	}

	res, err := client.Post(context.Background(), "/v1/completions", body)
	fmt.Println(res.Status, string(res.Body), err)
	// Output: 200 posted to /v1/completions <nil>
}
