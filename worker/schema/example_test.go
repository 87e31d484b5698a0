package schema_test

import (
	"fmt"

	"github.com/promptmill/promptmill/worker/schema"
)

func ExampleSchema_Check() {
	s, err := schema.Compile([]byte(`{
		"type": "object",
		"properties": {"age": {"type": "integer"}},
		"required": ["age"]
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println(s.Check([]byte(`{"age": 7}`)))
	fmt.Println(s.Check([]byte(`{"age": "seven"}`)))
	fmt.Println(s.Check([]byte(`{"age": 7`)))
	// Output:
	// <nil>
	// /age: got string, want integer
	// the answer is not JSON: it ends in the middle
}
