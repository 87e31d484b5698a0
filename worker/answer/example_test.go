package answer_test

import (
	"fmt"

	"github.com/promptmill/promptmill/worker/answer"
)

func ExampleSchema_Check() {
	schema, err := answer.NewSchema([]byte(`{
		"type": "object",
		"properties": {"age": {"type": "integer"}},
		"required": ["age"]
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println(schema.Check([]byte(`{"age": 7}`)))
	fmt.Println(schema.Check([]byte(`{"age": "seven"}`)))
	fmt.Println(schema.Check([]byte(`{"age": 7`)))
	// Output:
	// <nil>
	// /age: got string, want integer
	// not JSON: it ends in the middle
}
