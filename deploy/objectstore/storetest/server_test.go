package storetest

import (
	"net/http"
	"os"
	"os/exec"
	"testing"
)

// addressVariable makes this test binary a server at an address.
const addressVariable = "STORETEST_ADDRESS"

func TestMain(m *testing.M) {
	if address := os.Getenv(addressVariable); address != "" {
		_ = http.ListenAndServe(address, http.NotFoundHandler()) // it is killed
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// A server whose address was taken by another process ends, and is started at another address.
func TestStartProgramAgain(t *testing.T) {
	var addresses []string
	url := startProgram(t, func(address string) *exec.Cmd {
		addresses = append(addresses, address)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), addressVariable+"="+address)
		if len(addresses) == 1 {
			cmd.Env = append(cmd.Env, addressVariable+"=256.0.0.1:1") // at which it cannot listen
		}
		return cmd
	})

	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()

	if len(addresses) != 2 || url != "http://"+addresses[1] {
		t.Errorf("%s, of the addresses %v", url, addresses)
	}
}
