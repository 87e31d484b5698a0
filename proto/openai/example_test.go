package openai_test

import (
	"fmt"
	"log"

	"github.com/promptmill/promptmill/proto/openai"
)

func ExampleReadAnswer() {
	request := []byte(`{"model":"m","prompt":["Say hello.","Say goodbye."]}`)
	body := []byte(`{"model":"m","choices":[{"text":"Hello.","finish_reason":"stop"}],"usage":{"prompt_tokens":6,"completion_tokens":2}}`)

	a, err := openai.ReadAnswer("/v1/completions", request, body)
	if err != nil {
		log.Fatal(err)
	}

	fmt.Printf("%s, %d tokens: %s\n", a.Finish, a.Usage.Completion, a.Text)
	fmt.Println(a.Problem)
	// Output:
	// stop, 2 tokens: Hello.
	// the request is for 2 choices, and the answer has 1
}
