package busconn_test

import (
	"fmt"

	"github.com/promptmill/promptmill/deploy/busconn"
)

func ExampleRedactURLs() {
	fmt.Println(busconn.RedactURLs("nats://me:secret@bus.example:4222,nats://bus.example:4223"))
	// Output: nats://bus.example:4222,nats://bus.example:4223
}
