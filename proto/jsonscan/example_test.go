package jsonscan_test

import (
	"fmt"
	"log"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

func ExampleScanner() {
	var s jsonscan.Scanner
	s.Reset([]byte(`{"model": "m", "body": {"seed": 1234567890123456789}, "n": 1}`))

	for s.Enter(); s.Next(); {
		if string(s.Name()) == "body" {
			fmt.Printf("%s\n", s.Value()) // as it stands in the input
		}
	}

	if err := s.End(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// {"seed": 1234567890123456789}
}
