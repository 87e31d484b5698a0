package natsserver_test

import (
	"context"
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/proto"
)

// A server starts in a folder of state, where other processes of the machine find it.
func ExampleStart() {
	state, err := os.MkdirTemp("", "promptmill-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(state)

	s, err := natsserver.Start(natsserver.Config{State: state, Dir: state + "/serve", Log: zerolog.Nop()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Stop()

	fmt.Println("buses on this machine:", len(localbus.List(state)))

	c, err := busconn.Connect(busconn.Options{State: state}, proto.RoleReader, zerolog.Nop())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	info, err := s.JS.AccountInfo(context.Background())
	fmt.Println("streams:", info.Streams, err)
	// Output:
	// buses on this machine: 1
	// streams: 0 <nil>
}
