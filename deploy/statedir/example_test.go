package statedir_test

import (
	"errors"
	"fmt"
	"os"

	"github.com/promptmill/promptmill/deploy/statedir"
)

func ExampleLock() {
	state, err := os.MkdirTemp("", "statedir")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(state)

	dir := statedir.ForOutput(state, "answers")

	lock, err := statedir.Lock(state, dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lock.Close()

	_, err = statedir.Lock(state, dir)
	fmt.Println("a second process is refused:", errors.Is(err, statedir.ErrLocked))

	// Output:
	// a second process is refused: true
}
