package proto

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Join is all that a process needs to reach a bus: one string, made to be pasted.
type Join struct {
	// Addresses are HOST:PORT, to be tried in this order.
	Addresses []string
	Role      Role
	// Token is the role's secret.
	Token [TokenSize]byte
	// Fingerprint is the SHA-256 of the server's certificate (DER).
	Fingerprint [sha256.Size]byte
}

// TokenSize is the length of a role's secret in bytes.
const TokenSize = 16

// joinPrefix begins each join string, and has the version of its form.
const joinPrefix = "pm1_"

// otherVersion matches the beginning of a join string of another form.
var otherVersion = regexp.MustCompile(`^pm[0-9]+_`)

// ErrJoin is returned for a text that is no join string.
var ErrJoin = errors.New("not a join string")

// User is the user name on the wire, the name of the role.
func (j Join) User() string { return string(j.Role) }

// Password is the password on the wire, the token in URL-safe base64.
func (j Join) Password() string { return base64.RawURLEncoding.EncodeToString(j.Token[:]) }

// String returns the join string: "pm1_", and in URL-safe base64 without padding one byte for the
// role, the token, the fingerprint, the addresses joined by commas, and the big-endian CRC-32
// (IEEE) of all that, which detects a string that was cut short.
func (j Join) String() string {
	b := []byte{byte(slices.Index(Roles(), j.Role))}
	b = append(b, j.Token[:]...)
	b = append(b, j.Fingerprint[:]...)
	b = append(b, strings.Join(j.Addresses, ",")...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return joinPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseJoin reads a join string. It ignores blanks, line breaks and quotes, which pasting adds. Its
// errors wrap [ErrJoin].
func ParseJoin(text string) (Join, error) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || strings.ContainsRune("\"'`“”‘’", r) {
			return -1
		}
		return r
	}, text)

	body, ok := strings.CutPrefix(text, joinPrefix)
	if !ok && otherVersion.MatchString(text) {
		return Join{}, fmt.Errorf("%w: it is of another version of promptmill", ErrJoin)
	}
	if !ok {
		return Join{}, fmt.Errorf("%w: it does not begin with %q", ErrJoin, joinPrefix)
	}

	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || len(b) < 1+TokenSize+sha256.Size+4 {
		return Join{}, fmt.Errorf("%w: a part of it is missing", ErrJoin)
	}

	b, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.ChecksumIEEE(b) != sum {
		return Join{}, fmt.Errorf("%w: it is damaged, or a part of it is missing", ErrJoin)
	}

	if int(b[0]) >= len(Roles()) {
		return Join{}, fmt.Errorf("%w: it is of a newer version of promptmill", ErrJoin)
	}

	j := Join{Role: Roles()[b[0]]}
	b = b[1:]
	b = b[copy(j.Token[:], b):]
	b = b[copy(j.Fingerprint[:], b):]
	if len(b) == 0 {
		return Join{}, fmt.Errorf("%w: there is no address in it", ErrJoin)
	}

	j.Addresses = strings.Split(string(b), ",")

	return j, nil
}
