package batchapi_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/batchapi"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto"
)

// noBatches has no batches. A program uses batchapi.Runs.
type noBatches struct{ batchapi.Batches }

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	files, err := filestore.Open(dir, zerolog.Nop())
	if err != nil {
		panic(err)
	}
	defer files.Close()

	handler, err := batchapi.New(batchapi.Config{
		Files:   files,
		Batches: noBatches{},
		Models: func(context.Context) ([]proto.WorkerInfo, error) {
			return []proto.WorkerInfo{{
				Ready:   true,
				Flavour: "vLLM",
				Models:  []string{"llama"},
				Since:   time.Unix(1795917113, 0),
			}}, nil
		},
	})
	if err != nil {
		panic(err)
	}

	server := httptest.NewServer(handler)
	defer server.Close()

	resp, err := http.Get(server.URL + "/v1/models/llama")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()

	text, err := io.ReadAll(resp.Body)
	fmt.Print(string(text), err)
	// Output:
	// {"id":"llama","object":"model","created":1795917113,"owned_by":"vllm"}
	// <nil>
}
