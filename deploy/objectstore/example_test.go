package objectstore_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/promptmill/promptmill/deploy/objectstore"
)

func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(`{"prompt": "hello"}`))
	}))
	defer server.Close()

	client := objectstore.New(objectstore.Config{})
	defer client.Close()

	files, err := client.Expand(context.Background(), server.URL+"/prompts.jsonl")
	if err != nil {
		fmt.Println(err)
		return
	}

	file, err := client.Stat(context.Background(), files[0])
	fmt.Println(file.Bytes, file.ETag, err)
	// Output: 19 "v1" <nil>
}
