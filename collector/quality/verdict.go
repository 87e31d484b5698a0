package quality

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/proto"
)

// mode is the way in which answers are read to be compared.
type mode byte

// The modes.
const (
	asText   mode = 't' // the text without the white space around it
	asNumber mode = 'n' // the last number in it
	asJSON   mode = 'j' // a JSON value
)

// outcome is what became of a request.
type outcome byte

// The outcomes.
const (
	notRun   outcome = iota // it has not ended, or was not sent
	failed                  // it has no answer that counts
	answered                // its answer has a text
	noText                  // its answer has none: an embedding, a ranking
)

// truth is what is known of a claim.
type truth byte

// The truths.
const (
	unknown truth = iota
	no
	yes
)

// truthOf returns the truth of a claim that is known.
func truthOf(claim bool) truth {
	if claim {
		return yes
	}
	return no
}

// verdict is the judgement of a request.
type verdict struct {
	outcome outcome
	// right is whether the answer is the expected one, and matched whether it matches the schema.
	right, matched truth
	// answer is the form of the answer in the mode of its run.
	answer form
	// score is NaN if there is none.
	score float64
}

// verdicts are the judgement of all requests of a run.
type verdicts struct {
	mode mode
	// sample and expected are the SHA-256 of these files, expected of none all zero.
	sample, expected digest
	// list has the verdicts by request index.
	list []verdict
}

// The form of a file of verdicts: the head with the mode, the digests and the number of requests, the verdicts, and the
// SHA-256 of all bytes before it.
const (
	verdictsMagic = "promptmill verdicts 1\n"
	headSize      = len(verdictsMagic) + 1 + 2*sha256.Size + 4
	verdictSize   = 3 + len(form{}) + 8
)

// encode returns the file of verdicts.
func (v verdicts) encode() []byte {
	data := make([]byte, 0, headSize+len(v.list)*verdictSize+sha256.Size)
	data = append(data, verdictsMagic...)
	data = append(data, byte(v.mode))
	data = append(data, v.sample[:]...)
	data = append(data, v.expected[:]...)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(v.list)))

	for _, one := range v.list {
		data = append(data, byte(one.outcome), byte(one.right), byte(one.matched))
		data = append(data, one.answer[:]...)
		data = binary.LittleEndian.AppendUint64(data, math.Float64bits(one.score))
	}

	sum := sha256.Sum256(data)

	return append(data, sum[:]...)
}

// errDamaged is the fault of a file of verdicts whose bytes are not those that were written.
var errDamaged = errors.New("its bytes are not those that were written")

// decodeVerdicts reads a file of verdicts.
func decodeVerdicts(data []byte) (v verdicts, err error) {
	rest, ok := bytes.CutPrefix(data, []byte(verdictsMagic))
	if !ok {
		return v, errors.New("it does not begin as a file of verdicts of this version")
	}

	if len(data) < headSize+sha256.Size {
		return v, errDamaged
	}

	body := data[:len(data)-sha256.Size]
	if digest(data[len(body):]) != sha256.Sum256(body) {
		return v, errDamaged
	}

	v.mode = mode(rest[0])
	v.sample = digest(rest[1:])
	v.expected = digest(rest[1+sha256.Size:])
	n := binary.LittleEndian.Uint32(data[headSize-4:])
	if v.mode != asText && v.mode != asNumber && v.mode != asJSON || len(body)-headSize != int(n)*verdictSize {
		return v, errDamaged
	}

	v.list = make([]verdict, n)
	for i := range v.list {
		raw := body[headSize+i*verdictSize:]
		one := verdict{
			outcome: outcome(raw[0]),
			right:   truth(raw[1]),
			matched: truth(raw[2]),
			answer:  form(raw[3:]),
			score:   math.Float64frombits(binary.LittleEndian.Uint64(raw[3+len(form{}):])),
		}
		if one.outcome > noText || one.right > yes || one.matched > yes || one.score < 0 || one.score > 1 {
			return v, errDamaged
		}
		v.list[i] = one
	}

	return v, nil
}

// write writes the file.
func (v verdicts) write(path string) error {
	file, err := atomicfile.Create(path, 0o666)
	if err != nil {
		return fmt.Errorf("write verdicts: %w", err)
	}

	_, err = file.Write(v.encode())
	if err = file.Commit(err); err != nil {
		return fmt.Errorf("write verdicts: %w", err)
	}

	return nil
}

// readVerdicts reads a file of verdicts.
func readVerdicts(path string) (v verdicts, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return v, fmt.Errorf("read verdicts: %w", err)
	}

	if v, err = decodeVerdicts(data); err != nil {
		return v, fmt.Errorf("read verdicts %s: %w: %w", path, proto.ErrFormat, err)
	}

	return v, nil
}
