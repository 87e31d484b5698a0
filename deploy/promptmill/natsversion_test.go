package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

// oldServer is a NATS server of a version that answers nothing but that it is there.
func oldServer(t *testing.T, version string) (url string) {
	t.Helper()

	return "nats://" + serveConnections(t, func(conn net.Conn) {
		fmt.Fprintf(conn,
			"INFO {\"server_id\":\"x\",\"version\":%q,\"proto\":1,\"headers\":true,\"max_payload\":1048576,\"jetstream\":true}\r\n",
			version)

		for lines := bufio.NewScanner(conn); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "PING") {
				fmt.Fprint(conn, "PONG\r\n")
			}
		}
	})
}

// Every command refuses a server that is too old, at once.
func TestOldServerIsRefused(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := c.input("in.jsonl", 3)
	url := oldServer(t, "2.9.25")
	for _, args := range [][]string{
		{"run", in, "--sim"},
		{"serve"},
		{"worker", "--sim"},
		{"submit", in, "--model", "m"},
		{"collect", "r", "-o", "o.jsonl.zst"},
		{"list"},
		{"status"},
		{"workers"},
		{"tail", "r"},
		{"pause", "r"},
		{"resume", "r"},
		{"cancel", "r"},
		{"retry", "r"},
		{"delete", "r"},
	} {
		_, said, code := c.output(append(args, "--nats", url)...)
		if code != exit.CodeUnreachable ||
			!strings.Contains(said, "error: the NATS server at "+strings.TrimPrefix(url, "nats://")+
				" has version 2.9.25, and promptmill needs 2.11 or later\n") ||
			!strings.Contains(said, "hint: update nats-server") {
			t.Errorf("%s: exit code %d:\n%s", args[0], code, said)
		}
	}
}
