package apiserver_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/apiserver"
	"github.com/promptmill/promptmill/deploy/httpserver"
)

// Clients that come before the bus is ready are asked to wait.
func Example() {
	dir, err := os.MkdirTemp("", "apiserver")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	api, err := apiserver.Open(apiserver.Config{
		Listen: httpserver.Config{Address: "127.0.0.1:0"},
		Keys:   apikey.Open(filepath.Join(dir, apikey.FileName)),
		Dir:    dir,
		State:  dir,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer api.Close()

	// A program gives api.Serve to pipeline.ServeConfig.
	answer, err := http.Get(api.URL() + "/models")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer answer.Body.Close()

	text, _ := io.ReadAll(answer.Body)
	fmt.Println(answer.StatusCode, answer.Header.Get("Retry-After"), strings.Contains(string(text), "starting"))

	// Output: 503 2 true
}
