package httpserver_test

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/promptmill/promptmill/deploy/httpserver"
)

func Example() {
	server, err := httpserver.Listen(httpserver.Config{Address: "127.0.0.1:0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	ready := func() (status string) {
		answer, err := http.Get("http://" + server.Addr() + "/readyz")
		if err != nil {
			return err.Error()
		}
		defer answer.Body.Close()

		text, _ := io.ReadAll(answer.Body)

		return fmt.Sprintf("%d %s", answer.StatusCode, text)
	}

	fmt.Print(ready())

	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	connected := make(chan bool)
	go func() {
		ended <- server.Run(ctx, http.NotFoundHandler(), func(context.Context) error {
			close(connected)
			return nil
		})
	}()

	for text := ready(); ; text = ready() {
		select {
		case <-connected:
			fmt.Print(text)
			stop()
			fmt.Println(<-ended)
			return
		default:
		}
	}

	// Output:
	// 503 {"ready":false,"reasons":["the server is starting"]}
	// 200 {"ready":true}
	// <nil>
}
