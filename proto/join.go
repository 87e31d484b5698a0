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
	"time"
	"unicode"
)

// Join is all that a process needs to reach a bus: one string, made to be pasted.
type Join struct {
	// Addresses are HOST:PORT, to be tried in this order.
	Addresses []string
	Role      Role
	// Name is the name of a string that was made for one box ([CheckJoinName]). It is empty in the string of a role,
	// which all boxes may share.
	Name string
	// Expires is when a string with a name ends, in whole seconds, for people: the bus decides by its own record. The
	// zero time: never.
	Expires time.Time
	// Token is the secret of the role, or that of the name.
	Token [TokenSize]byte
	// Fingerprint is the SHA-256 of the server's certificate (DER).
	Fingerprint [sha256.Size]byte
}

// TokenSize is the length of the secret of a join string in bytes.
const TokenSize = 16

// MaxJoinName is the longest name of a join string in bytes.
const MaxJoinName = 64

// joinPrefix begins each join string, and has the version of its form.
const joinPrefix = "pm1_"

// namedJoin is the bit of the role's byte that says that the string has a name. Earlier versions of promptmill take it
// for a role that they do not know.
const namedJoin = 0x80

// otherVersion matches the beginning of a join string of another form.
var otherVersion = regexp.MustCompile(`^pm[0-9]+_`)

// ErrJoin is returned for a text that is no join string.
var ErrJoin = errors.New("not a join string")

// joinName matches the names of join strings: words of a host name, which no shell and no table changes.
var joinName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// CheckJoinName returns an error for people if a text cannot be the name of a join string. A name has letters of
// ASCII, digits, dots, dashes and underscores, begins with a letter or a digit, has [MaxJoinName] bytes at most, and is
// not that of a role.
func CheckJoinName(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty")
	case len(name) > MaxJoinName:
		return fmt.Errorf("it has %d bytes, of %d at most", len(name), MaxJoinName)
	case !joinName.MatchString(name):
		return errors.New("it may have letters, digits, dots, dashes and underscores, and begins with a letter or a digit")
	case slices.Contains(Roles(), Role(strings.ToLower(name))) || strings.EqualFold(name, Owner):
		return errors.New("it is the name of a role")
	}

	return nil
}

// User is the user name on the wire: the name of the role, and behind a dot that of the string.
func (j Join) User() string {
	if j.Name == "" {
		return string(j.Role)
	}
	return string(j.Role) + "." + j.Name
}

// Password is the password on the wire, the token in URL-safe base64.
func (j Join) Password() string { return base64.RawURLEncoding.EncodeToString(j.Token[:]) }

// String returns the join string: "pm1_", and in URL-safe base64 without padding one byte for the
// role, the token, the fingerprint, the addresses joined by commas, and the big-endian CRC-32
// (IEEE) of all that, which detects a string that was cut short. In a string with a name the role's byte has the bit
// 0x80, and the end in seconds since 1970 (8 bytes, big-endian, 0 for none), the length of the name in one byte and
// the name stand before the addresses.
func (j Join) String() string {
	b := []byte{byte(slices.Index(Roles(), j.Role))}
	b = append(b, j.Token[:]...)
	b = append(b, j.Fingerprint[:]...)
	if j.Name != "" {
		b[0] |= namedJoin
		var end uint64
		if !j.Expires.IsZero() {
			end = uint64(j.Expires.Unix())
		}
		b = binary.BigEndian.AppendUint64(b, end)
		b = append(append(b, byte(len(j.Name))), j.Name...)
	}

	b = append(b, strings.Join(j.Addresses, ",")...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))

	return joinPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseJoin reads a join string. It ignores blanks, line breaks, quotes, byte order marks and spaces of no width,
// which pasting and files of Windows add. Its errors wrap [ErrJoin].
func ParseJoin(text string) (Join, error) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || strings.ContainsRune("\"'`“”‘’\u200b\ufeff", r) {
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

	role := int(b[0] &^ namedJoin)
	if role >= len(Roles()) {
		return Join{}, fmt.Errorf("%w: it is of a newer version of promptmill", ErrJoin)
	}

	named := b[0]&namedJoin != 0
	j := Join{Role: Roles()[role]}
	b = b[1:]
	b = b[copy(j.Token[:], b):]
	b = b[copy(j.Fingerprint[:], b):]
	if named {
		if b, err = j.parseName(b); err != nil {
			return Join{}, err
		}
	}

	if len(b) == 0 {
		return Join{}, fmt.Errorf("%w: there is no address in it", ErrJoin)
	}

	j.Addresses = strings.Split(string(b), ",")

	return j, nil
}

// latestEnd is the last second that the end of a string may be: the last one of the year 9999, which RFC 3339 can
// write.
const latestEnd = 253402300799

// parseName reads the end and the name of a string, and returns the bytes behind them.
func (j *Join) parseName(b []byte) ([]byte, error) {
	const head = 8 + 1 // the end, and the length of the name
	if len(b) < head || len(b) < head+int(b[8]) {
		return nil, fmt.Errorf("%w: a part of it is missing", ErrJoin)
	}

	end := binary.BigEndian.Uint64(b)
	if end > latestEnd {
		return nil, fmt.Errorf("%w: its end lies behind the year 9999", ErrJoin)
	}
	if end > 0 {
		j.Expires = time.Unix(int64(end), 0).UTC()
	}

	j.Name = string(b[head : head+int(b[8])])
	if err := CheckJoinName(j.Name); err != nil {
		return nil, fmt.Errorf("%w: its name cannot be used: %w", ErrJoin, err)
	}

	return b[head+len(j.Name):], nil
}
