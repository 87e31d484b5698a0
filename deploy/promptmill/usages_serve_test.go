package main

import (
	"net"
	"testing"
)

func TestUsageOfServe(t *testing.T) {
	t.Parallel()

	other, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { other.Close() })

	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n"}
	testUsages(t, []usage{
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
