package modelserver

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
)

// BenchmarkPost measures a request and its answer, of 4 KB each, with a server that takes no time.
func BenchmarkPost(b *testing.B) {
	text := bytes.Repeat([]byte("x"), 4<<10)
	s := listen(b, func(c *net.TCPConn, in *bufio.Reader) {
		answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4120\r\n\r\n")
		for n := 0; ; n++ {
			length := 0
			for {
				line, err := in.ReadSlice('\n')
				if err != nil {
					return
				}

				if len(line) == 2 {
					break
				}

				if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
					length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
				}
			}

			if _, err := io.CopyN(io.Discard, in, int64(length)); err != nil {
				return
			}

			c.Write(append(fmt.Appendf(answer, "chatcmpl-%015d", n), text...))
		}
	})

	b.ReportAllocs()
	for b.Loop() {
		if a := s.Post(b.Context(), "/v1/chat/completions", text); a.Err != nil || len(a.Body) != 4120 {
			b.Fatalf("%d bytes, %v", len(a.Body), a.Err)
		}
	}
}
