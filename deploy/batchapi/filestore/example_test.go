package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
)

func ExampleStore() {
	dir, err := os.MkdirTemp("", "filestore")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	store, err := filestore.Open(dir, zerolog.Nop())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	file, err := store.Create(context.Background(), filestore.File{
		Filename: "prompts.jsonl",
		Purpose:  filestore.PurposeBatch,
	}, strings.NewReader("{}\n"))
	if err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println(file.Filename, file.Bytes)

	path, err := store.Path(file.ID)
	if err != nil {
		fmt.Println(err)
		return
	}

	text, err := os.ReadFile(path)
	fmt.Printf("%s%v\n", text, err)

	fmt.Println(store.Delete(file.ID))
	_, err = store.Get(file.ID)
	fmt.Println("it is gone:", errors.Is(err, filestore.ErrNotFound))

	// Output:
	// prompts.jsonl 3
	// {}
	// <nil>
	// <nil>
	// it is gone: true
}
