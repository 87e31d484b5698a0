package main

import (
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/deploy/exit"
)

func TestUsageOfServe(t *testing.T) {
	t.Parallel()

	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n"}
	testUsages(t, []usage{
		{
			args: "serve --metrics :9464 --scale-within 0s",
			err:  "--scale-within 0s: must be more than 0",
			code: 2,
		},
		{
			args: "serve --scale-within 8h",
			err:  "--scale-within needs --metrics, --api or --otlp",
			hint: "give --metrics too, or leave out --scale-within",
			code: 2,
		},
		{
			args: "serve --listen 4333",
			err:  "--listen 4333: it has no host",
			hint: "for example --listen 0.0.0.0:4333",
			code: 2,
		},
		{
			args: "serve --listen 25012",
			err:  "--listen 25012: it has no host",
			hint: "for example --listen 0.0.0.0:25012",
			code: 2,
		},
		{
			args: "serve --listen localhost",
			err:  "--listen localhost: it has no port",
			hint: "for example --listen 0.0.0.0:4333",
			code: 2,
		},
		{
			args: "serve --listen ::1:4333",
			err:  "--listen ::1:4333: an IPv6 address is written in brackets, as in [::]:4333",
			hint: "for example --listen 0.0.0.0:4333",
			code: 2,
		},
		{
			args: "serve --listen 0.0.0.0:port",
			err:  `--listen 0.0.0.0:port: port "port" is not a number from 0 to 65535`,
			hint: "for example --listen 0.0.0.0:4333",
			code: 2,
		},
		{
			args: "serve --listen 127.0.0.1:0 --advertise http://head.example",
			err:  "--advertise http://head.example: want the name or address of this box, and perhaps a port",
			hint: "for example --advertise head.example or --advertise head.example:4333",
			code: 2,
		},
		{
			args: "join --advertise head.example:port",
			err:  "--advertise head.example:port: want the name or address of this box, and perhaps a port",
			hint: "for example --advertise head.example or --advertise head.example:4333",
			code: 2,
		},
		{
			args: "join",
			err:  "no bus runs on this machine",
			hint: "promptmill serve starts one",
			code: 4,
		},
		{
			args: "join boss",
			err:  `there is no role "boss"`,
			hint: "want worker, producer, collector or reader",
			code: 2,
		},
		{
			args:  "serve --dir in.jsonl",
			files: files,
			err:   "--dir DIR/in.jsonl: DIR/in.jsonl is a file, not a folder",
			hint:  "choose another folder with --dir",
			code:  2,
		},
		{
			args:  "serve --dir in.jsonl/a/b",
			files: files,
			err:   "--dir DIR/in.jsonl/a/b: DIR/in.jsonl is a file, not a folder",
			hint:  "choose another folder with --dir",
			code:  2,
		},
		{
			args: "serve --listen 198.51.100.1:4333",
			err:  "--listen 198.51.100.1:4333: this machine has no address 198.51.100.1",
			hint: "0.0.0.0 is all IPv4 addresses of this machine, and --advertise names another one for other boxes",
			code: 2,
		},
		{
			args: "serve --listen nosuch.invalid:4333",
			err:  "--listen nosuch.invalid:4333: no address has the name nosuch.invalid",
			hint: "0.0.0.0 is all IPv4 addresses of this machine",
			code: 2,
		},
	})
}

// A run whose port is taken names the next free one, and leaves nothing.
func TestRunAtTakenPort(t *testing.T) {
	t.Parallel()

	other, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { other.Close() })

	c := newCommand(t)
	in, address := c.input("in.jsonl", 3), other.Addr().String()
	before := append(c.left(), "state") // the folder for locks
	said, code := c.run("run", in, "--sim", "--listen", address)
	if code != exit.CodeError ||
		!strings.Contains(said, "error: cannot listen at "+address+": another program has this port already\n") ||
		!strings.Contains(said, "hint: choose another port with --listen HOST:PORT, for example 127.0.0.1:") {
		t.Errorf("exit code %d:\n%s", code, said)
	}

	if diff := cmp.Diff(before, c.left()); diff != "" {
		t.Errorf("the refusal changes the folder (-before +after):\n%s", diff)
	}
}
