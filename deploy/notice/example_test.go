package notice_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/promptmill/promptmill/deploy/notice"
)

func Example() {
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)

	leave := filepath.Join(folder, "leave")
	sources, err := notice.Parse([]string{"file:" + leave}, os.Getenv)
	if err != nil {
		fmt.Println(err)
		return
	}

	// What takes the box back leaves it two minutes.
	if err := os.WriteFile(leave, []byte("2m"), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	ctx, stop := context.WithCancel(context.Background())
	err = notice.Watch(ctx, notice.Config{
		Sources: sources,
		Announce: func(n notice.Notice) {
			left := time.Until(n.Deadline)
			fmt.Println(n.Reason, left > time.Minute && left <= 2*time.Minute)
			stop()
		},
	})
	fmt.Println(err)
	// Output:
	// the file is there true
	// <nil>
}
