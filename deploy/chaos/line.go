package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// expected is the outcome that a request must have.
type expected struct {
	customID string
	refused  bool   // by the model server, for good
	answer   string // its id, without a prefix; all texts begin with it
	in, out  int64  // tokens
	deaths   int    // of model servers until now, whatever they had then
}

// readInput returns the expected outcome of each request of an input file.
func readInput(path string) ([]expected, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}

	var list []expected
	for text := range bytes.Lines(data) {
		var request struct {
			CustomID string `json:"custom_id"`
			Body     struct {
				Messages  json.RawMessage `json:"messages"`
				MaxTokens int             `json:"max_tokens"`
			} `json:"body"`
		}
		if err := json.Unmarshal(text, &request); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}

		h := fnv.New64a()
		h.Write(request.Body.Messages)
		hash := h.Sum64() ^ modelSeed
		list = append(list, expected{
			customID: request.CustomID,
			refused:  request.Body.MaxTokens >= tooMuch,
			answer:   fmt.Sprintf("%016x", hash),
			in:       max(1, int64(len(request.Body.Messages)/4)),
			out:      max(1, modelTokens/2+int64(hash%(modelTokens+1))),
		})
	}

	return list, nil
}

// line is an output line.
type line struct {
	CustomID string `json:"custom_id"`
	Response *struct {
		Status int             `json:"status_code"`
		Body   json.RawMessage `json:"body"`
	} `json:"response"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	Extras struct {
		Seq      int    `json:"index"`
		Worker   string `json:"worker"`
		Attempts int    `json:"attempts"`
		// How long it waited for its first attempt, and took for its last.
		Queued  int64 `json:"queued_ms"`
		Latency int64 `json:"latency_ms"`
		Total   int64 `json:"total_ms"`
	} `json:"promptmill"`
	bytes int64
}

func (l line) isAnswered() bool {
	return l.Error == nil && l.Response != nil && l.Response.Status == 200
}

// answerText is the id of its answer, without a prefix.
func (l line) answerText() string {
	var body struct {
		ID string `json:"id"`
	}
	if l.Response == nil || json.Unmarshal(l.Response.Body, &body) != nil {
		return ""
	}

	return strings.TrimPrefix(body.ID, "chatcmpl-")
}

// readLines reads JSONL. Of a text that is cut off, as that of a process that was
// killed, it returns the whole lines and io.ErrUnexpectedEOF.
func readLines(data []byte) (list []line, err error) {
	for text := range bytes.Lines(data) {
		if !bytes.HasSuffix(text, []byte{'\n'}) {
			return list, io.ErrUnexpectedEOF
		}

		l := line{bytes: int64(len(text))}
		if err := json.Unmarshal(text, &l); err != nil {
			return list, fmt.Errorf("line %d: %w", len(list)+1, err)
		}

		list = append(list, l)
	}

	return list, nil
}

// errFrames is of a file that is not one whole zstd frame with its size and a checksum,
// as common readers want it.
var errFrames = errors.New("not one zstd frame with size and checksum")

// readOutput reads a file of the output. One that is not there has no lines.
func readOutput(path string) ([]line, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}

	dec, err := zstd.NewReader(nil)
	if err != nil {
		return nil, err
	}
	defer dec.Close()

	text, err := dec.DecodeAll(data, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}

	var frame zstd.Header
	if err := frame.Decode(data); err != nil || !frame.HasCheckSum || frame.FrameContentSize != uint64(len(text)) {
		return nil, fmt.Errorf("%s: %w", path, errFrames)
	}

	list, err := readLines(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}

	return list, nil
}

// readJournal reads the lines of a journal that is being written and may be
// damaged: it leaves out the parts that it cannot read. It jumps over the skippable frames by
// itself.
func readJournal(path string) ([]line, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}

	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer dec.Close()

	var list []line
	for len(data) >= 8 {
		if magic := binary.LittleEndian.Uint32(data); magic>>4 == 0x184D2A5 {
			data = data[min(len(data), 8+int(binary.LittleEndian.Uint32(data[4:]))):]
			continue
		}

		// The next skippable frame is where this one ends.
		end := bytes.Index(data, []byte{0x57, 0x2A, 0x4D, 0x18})
		if end < 0 {
			end = len(data)
		}

		text, err := dec.DecodeAll(data[:end], nil)
		if err != nil {
			break
		}

		some, err := readLines(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}

		list, data = append(list, some...), data[end:]
	}

	return list, nil
}
