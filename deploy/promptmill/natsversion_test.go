package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
)

func TestCheckServer(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		version       string
		refused, warn bool
	}{
		{"1.4.1", true, false},
		{"2.9.25", true, false},
		{"2.10.29", true, false},
		{"2.11.0", false, true},
		{"2.11.17", false, true},
		{"2.12.15", false, true},
		{"2.14.0-RC.1", false, true},
		{"2.14.9", false, true},
		{"2.14.10", false, false},
		{"2.14.11", false, false},
		{"2.15.0", false, true},
		{"2.15.2", false, true},
		{"2.15.3", false, false},
		{"2.15.3-beta.1", false, false},
		{"2.16.0", false, false},
		{"3.0.0", false, false},
		{"built by hand", false, false},
		{"", false, false},
	} {
		var log bytes.Buffer
		err := checkServer(tt.version, zerolog.New(&log))
		if refused := err != nil; refused != tt.refused ||
			refused && (exit.Code(err) != exit.CodeUnreachable || !strings.Contains(err.Error(), tt.version) ||
				exit.Hint(err) == "") {
			t.Errorf("%s: %v, refused %v", tt.version, err, tt.refused)
		}

		if warned := strings.Count(log.String(), lossOfStreams); warned != map[bool]int{true: 1}[tt.warn] {
			t.Errorf("%s: warned %d times", tt.version, warned)
		}
	}
}

// oldServer is a NATS server of a version that answers nothing but that it is there.
func oldServer(t *testing.T, version string) (url string) {
	t.Helper()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })

	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}

			go func() {
				defer conn.Close()

				fmt.Fprintf(conn,
					"INFO {\"server_id\":\"x\",\"version\":%q,\"proto\":1,\"headers\":true,\"max_payload\":1048576,\"jetstream\":true}\r\n",
					version)

				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if strings.HasPrefix(lines.Text(), "PING") {
						fmt.Fprint(conn, "PONG\r\n")
					}
				}
			}()
		}
	}()

	return "nats://" + l.Addr().String()
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
			!strings.Contains(said, "error: the server is NATS 2.9.25, and promptmill needs 2.11 or later") ||
			!strings.Contains(said, "hint: update nats-server") {
			t.Errorf("%s: exit code %d:\n%s", args[0], code, said)
		}
	}
}
