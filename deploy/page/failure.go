package page

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/content"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

const (
	// mostMessage is the most bytes of a failure's message.
	mostMessage = 2000
	// mostErrorText is the most bytes of failed lines for which the latest are looked for in a complete output: its
	// file is read from the start.
	mostErrorText = 64 << 20
	// tailBytes are the bytes at its end that are read for them.
	tailBytes = 256 << 10
)

// parseFailures returns failed requests by their lines. It leaves out lines that cannot be read.
func parseFailures(lines [][]byte) []Failure {
	list := []Failure{}
	for _, line := range lines {
		if f, ok := parseFailure(line); ok {
			list = append(list, f)
		}
	}
	return list
}

// parseFailure returns a failed request by its line.
func parseFailure(line []byte) (f Failure, ok bool) {
	info, err := proto.ParseLine(new(jsonscan.Scanner), line)
	if err != nil || info.OK {
		return f, false
	}

	var has struct {
		CustomID string `json:"custom_id"`
		Response *struct {
			Body json.RawMessage `json:"body"`
		} `json:"response"`
		Error *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &has); err != nil {
		return f, false
	}

	f = Failure{
		CustomID: has.CustomID,
		Cause:    info.ErrorCode,
		Status:   info.Status,
		Attempts: int(info.Attempts),
		Worker:   string(info.Worker),
	}
	if has.Error != nil {
		f.Message = has.Error.Message
	}
	if f.Message == "" && has.Response != nil {
		f.Message = proto.ErrorText(has.Response.Body)
	}
	if len(f.Message) > mostMessage {
		f.Message = strings.ToValidUTF8(f.Message[:mostMessage], "") + "..."
	}

	return f, true
}

// readLastFailures returns the last lines of the failed requests of a complete output, the last first. It returns none
// if they cannot be read, or if that takes long.
func readLastFailures(ctx context.Context, out output.Prefix) (lines [][]byte) {
	c, err := content.Open(content.Config{Output: out, Kind: content.Failures})
	if err != nil {
		return nil
	}
	defer c.Close()

	size := c.Size()
	if size > mostErrorText {
		return nil
	}

	var text bytes.Buffer
	from := max(0, size-tailBytes)
	if err := c.CopyRange(ctx, &text, from, size-from); err != nil {
		return nil
	}

	lines = bytes.Split(bytes.TrimSuffix(text.Bytes(), []byte("\n")), []byte("\n"))
	if from > 0 {
		lines = lines[1:] // it may be a part of one
	}
	slices.Reverse(lines)

	return lines[:min(len(lines), mostFailures)]
}
