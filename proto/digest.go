package proto

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/cespare/xxhash/v2"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Hash is the XXH64 of the request's line as [AppendRequest] writes it, without its line
// feed. A refused request has the hash of its custom_id with the quotes, since the reason
// for the refusal is a text that another version of promptmill may word otherwise.
func (r Request) Hash() uint64 {
	if r.Refused != "" {
		return xxhash.Sum64(r.CustomID)
	}

	var d xxhash.Digest
	d.Reset()
	d.WriteString(lineCustomID)
	d.Write(r.CustomID)
	d.WriteString(lineURL)
	d.WriteString(r.URL)
	d.WriteString(lineBody)
	d.Write(r.Body)
	d.WriteString("}")

	return d.Sum64()
}

// Digest identifies a set of requests, each with its index, its custom_id and its hash. It is a
// sum modulo 2^64, so that the order of the requests does not matter and two sets are joined by
// adding their digests. The digest of a run's output lines equals that of its input if, and but
// for one chance in 2^64 only if, each line answers its own request. It finds mistakes; it does
// not protect against an adversary who chooses the requests.
type Digest uint64

// Add takes a request into the set. customID is a JSON string with its quotes.
func (d *Digest) Add(index uint32, customID []byte, hash uint64) {
	*d += DigestOf(index, customID, hash)
}

// DigestOf is the digest of one request. A custom_id is the same in all its spellings.
func DigestOf(index uint32, customID []byte, hash uint64) Digest {
	if text := jsonscan.Text(customID); text != nil {
		customID = text
	}

	var number [12]byte
	binary.LittleEndian.PutUint32(number[:4], index)
	binary.LittleEndian.PutUint64(number[4:], hash)

	var d xxhash.Digest
	d.Reset()
	d.Write(number[:])
	d.Write(customID)

	return Digest(d.Sum64())
}

// String is the digest as 16 hexadecimal digits.
func (d Digest) String() string { return FormatHash(uint64(d)) }

// MarshalText implements [encoding.TextMarshaler]: JSON numbers have no 64 bits everywhere.
func (d Digest) MarshalText() ([]byte, error) { return appendHash(nil, uint64(d)), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Digest) UnmarshalText(text []byte) error {
	n, ok := parseHash(text)
	if !ok {
		return fmt.Errorf("digest %q: %w: not 16 hexadecimal digits", text, ErrFormat)
	}
	*d = Digest(n)

	return nil
}

// FormatHash writes a hash as 16 hexadecimal digits in lower case, as in output lines.
func FormatHash(hash uint64) string { return string(appendHash(nil, hash)) }

func appendHash(dst []byte, hash uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[hash>>shift&15])
	}

	return dst
}

// parseHash reads the text that [FormatHash] writes.
func parseHash(text []byte) (uint64, bool) {
	if len(text) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text), 16, 64)

	return n, err == nil
}
