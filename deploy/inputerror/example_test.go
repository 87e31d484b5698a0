package inputerror_test

import (
	"context"
	"fmt"
	"os"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/inputerror"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

func ExampleInput_Describe() {
	dir, err := os.MkdirTemp("", "promptmill-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	path := dir + "/prompts.json"
	os.WriteFile(path, []byte(`[{"prompt": "hello"}]`), 0o600)

	_, _, err = producer.Validate(
		context.Background(), producer.Source{Files: []string{path}}, proto.Settings{Model: "m"}, nil,
	)
	err = inputerror.Input{Files: []string{path}, Stdin: true}.Describe(err)

	fmt.Println("error:", err)
	fmt.Println("hint:", exit.Hint(err))
	fmt.Println("code:", exit.Code(err))
	// Output:
	// error: standard input looks like one JSON array, not JSONL with one request a line
	// hint: pipe it through this command first: jq -c '.[]'
	// code: 2
}
