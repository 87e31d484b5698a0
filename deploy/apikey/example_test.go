package apikey_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/promptmill/promptmill/deploy/apikey"
)

func Example() {
	dir, err := os.MkdirTemp("", "apikey")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	keys := apikey.Open(filepath.Join(dir, apikey.FileName))

	secret, _, err := keys.Create("alice", apikey.Rights{OwnOnly: true})
	if err != nil {
		fmt.Println(err)
		return
	}

	key, known, err := keys.Authenticate(secret)
	fmt.Println(key.Name, "sees only its own:", key.OwnOnly, known, err)

	_, known, err = keys.Authenticate("a guess")
	fmt.Println("a guess:", known, err)

	// Output:
	// alice sees only its own: true true <nil>
	// a guess: false <nil>
}
