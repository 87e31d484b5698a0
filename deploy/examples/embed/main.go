// Command embed is promptmill in a program of your own: it runs files of requests through a model
// server. Kill it at any moment; the same command resumes.
//
//	embed http://localhost:8000 answers prompts.jsonl...
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/pipeline"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: embed SERVER-URL OUTPUT INPUT...")
		os.Exit(exit.CodeUsage)
	}

	// The first Ctrl-C stops the run gracefully.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	res, err := pipeline.Run(ctx, pipeline.Config{
		Inputs:    os.Args[3:],
		Output:    os.Args[2],
		ServerURL: os.Args[1],
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "embed: %v\nhint: %s\n", err, exit.Hint(err))
		os.Exit(exit.Code(err))
	}

	fmt.Printf("%d answered, %d failed, in %s\n", res.Answered, res.Failed, res.Output.Results())
}
