package sample

import "github.com/promptmill/promptmill/proto"

// appendLine appends a request as a line of a batch, with its line feed.
func appendLine(dst []byte, r proto.Request) []byte {
	dst = append(dst, `{"custom_id":`...)
	dst = append(dst, r.CustomID...)
	dst = append(dst, `,"method":"POST","url":"`...)
	dst = append(dst, r.URL...) // one of proto.Endpoints, which need no escapes
	dst = append(dst, `","body":`...)
	dst = append(dst, r.Body...)

	return append(dst, "}\n"...)
}
