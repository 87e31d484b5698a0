package webhook_test

import (
	"fmt"
	"net/url"
	"time"

	"github.com/promptmill/promptmill/deploy/webhook"
	"github.com/promptmill/promptmill/proto"
)

// The event of a run that has ended, as its receivers get it.
func ExampleNewRunEvent() {
	created := time.Unix(1_795_000_000, 0)
	ended := created.Add(time.Hour)
	e := webhook.NewRunEvent(proto.Manifest{
		Run:       "nightly",
		State:     proto.StateCompleted,
		CreatedAt: created,
		EndedAt:   &ended,
	})

	fmt.Println(string(e.Body()))
	// Output: {"id":"evt_555aceeea1d93e870d99","object":"event","created_at":1795003600,"type":"batch.completed","data":{"id":"batch_nightly"}}
}

// The bus and the logs name an endpoint without what may be secret in its address.
func ExampleNameOf() {
	u, err := url.Parse("https://hooks.example.com/services/T00/XXXXxxxxXXXXxxxxXXXX?key=1")
	if err != nil {
		panic(err)
	}
	fmt.Println(webhook.NameOf(u))
	// Output: https://hooks.example.com/services/T00/XXXX...?...
}
