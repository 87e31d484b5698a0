package proto_test

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

func join(role proto.Role, addresses ...string) proto.Join {
	j := proto.Join{Addresses: addresses, Role: role}
	for i := range j.Token {
		j.Token[i] = byte(255 - i)
	}

	for i := range j.Fingerprint {
		j.Fingerprint[i] = byte(3 * i)
	}

	return j
}

// seal makes a join string of bytes, with the right checksum.
func seal(body []byte) string {
	body = binary.BigEndian.AppendUint32(slices.Clip(body), crc32.ChecksumIEEE(body))
	return "pm1_" + base64.RawURLEncoding.EncodeToString(body)
}

func TestJoinRoundTrip(t *testing.T) {
	t.Parallel()

	// What a double click selects whole, and no shell touches.
	word := regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	for _, role := range proto.Roles() {
		for _, addresses := range [][]string{
			{"127.0.0.1:4222"},
			{"[2001:db8::1]:4222"},
			{"a.example.org:4222", "10.0.0.2:4222", "[::1]:1"}, // the order stays
		} {
			want := join(role, addresses...)
			text := want.String()
			if !word.MatchString(text) {
				t.Errorf("%q is no word", text)
			}

			got, err := proto.ParseJoin(text)
			if err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%q (-want +got):\n%s", text, diff)
			}

			if got.User() != string(role) || got.Password() != want.Password() {
				t.Errorf("user %q, password %q", got.User(), got.Password())
			}
		}
	}
}

// A string with a name says whose it is and when it ends, and the user is of that name.
func TestNamedJoinRoundTrip(t *testing.T) {
	t.Parallel()

	for _, end := range []time.Time{{}, time.Unix(1, 0).UTC(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)} {
		for _, name := range []string{"b", "box7", "Box-7.rack_2", strings.Repeat("x", proto.MaxJoinName)} {
			want := join(proto.RoleCollector, "a.example.org:4222", "[::1]:1")
			want.Name, want.Expires = name, end
			got, err := proto.ParseJoin(want.String())
			if err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s until %s (-want +got):\n%s", name, end, diff)
			}

			if got.User() != "collector."+name || got.Password() != join(proto.RoleCollector).Password() {
				t.Errorf("user %q, password %q", got.User(), got.Password())
			}
		}
	}
}

func TestCheckJoinName(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"a", "7", "box7", "gpu-1.lan", "A_b", strings.Repeat("x", 64)} {
		if err := proto.CheckJoinName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}

	for name, want := range map[string]string{
		"":                      "it is empty",
		strings.Repeat("x", 65): "it has 65 bytes, of 64 at most",
		"-box":                  "begins with a letter or a digit",
		".box":                  "begins with a letter or a digit",
		"a b":                   "begins with a letter or a digit",
		"a/b":                   "begins with a letter or a digit",
		"a*":                    "begins with a letter or a digit",
		"bö":                    "begins with a letter or a digit",
		"a\n":                   "begins with a letter or a digit",
		"worker":                "the name of a role",
		"Reader":                "the name of a role",
		"owner":                 "the name of a role",
	} {
		if err := proto.CheckJoinName(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

// What users of other languages rely on.
func TestNamedJoinForm(t *testing.T) {
	t.Parallel()

	j := join(proto.RoleWorker, "a:1", "b:2")
	j.Name, j.Expires = "box7", time.Unix(0x01020304, 0)
	body := append([]byte{0x81}, j.Token[:]...)
	body = append(body, j.Fingerprint[:]...)
	body = append(body, "\x00\x00\x00\x00\x01\x02\x03\x04\x04box7a:1,b:2"...)
	if diff := cmp.Diff(seal(body), j.String()); diff != "" {
		t.Errorf("join string (-want +got):\n%s", diff)
	}
}

// What users of other languages rely on.
func TestJoinForm(t *testing.T) {
	t.Parallel()

	j := join(proto.RoleWorker, "a:1", "b:2")
	body := append([]byte{1}, j.Token[:]...)
	body = append(body, j.Fingerprint[:]...)
	body = append(body, "a:1,b:2"...)
	if diff := cmp.Diff(seal(body), j.String()); diff != "" {
		t.Errorf("join string (-want +got):\n%s", diff)
	}
}

func TestParseJoinWhiteSpace(t *testing.T) {
	t.Parallel()

	want := join(proto.RoleReader, "h:4222")
	for _, tt := range []struct{ name, before, after string }{
		{"a file's line feed", "", "\n"},
		{"a file of Windows", "", "\r\n"},
		{"pasted with white space around it", " \t\n", " "},
		{"from a file of Windows, and a chat", "\ufeff\u200b", "\u200b\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got, err := proto.ParseJoin(tt.before + want.String() + tt.after)
			if err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("join (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseJoinErrors(t *testing.T) {
	t.Parallel()

	good := join(proto.RoleWorker, "h:4222").String()
	body, err := base64.RawURLEncoding.DecodeString(good[len("pm1_"):])
	if err != nil {
		t.Fatal(err)
	}

	body = body[:len(body)-4]
	named := func(rest string) string { // a string with a name whose parts behind the fingerprint are rest
		return seal(append(append([]byte{0x81}, body[1:49]...), rest...))
	}
	newer := append([]byte{byte(len(proto.Roles()))}, body[1:]...)
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", `begin with "pm1_"`},
		{"white space", " \n", `begin with "pm1_"`},
		{"a URL", "nats://127.0.0.1:4222", `begin with "pm1_"`},
		{"another version", "pm2_" + good[len("pm1_"):], "it is of another version of promptmill"},
		{"the prefix alone", "pm1_", "a part of it is missing"},
		{"not base64", "pm1_" + strings.Repeat("%", 100), "a part of it is missing"},
		{"too short, with the right checksum", seal(body[:20]), "a part of it is missing"},
		{"the checksum is another's", good[:len(good)-4] + "AAAA", "damaged"},
		{"two of them", good + good, "damaged"},
		{"a role that is to come", seal(newer), "newer version"},
		{"a role that is to come, with a name", seal(append([]byte{0x84}, body[1:]...)), "newer version"},
		{"no name where one is said", named(""), "a part of it is missing"},
		{"a name that is cut short", named("\x00\x00\x00\x00\x00\x00\x00\x00\x09box7a:1"), "a part of it is missing"},
		{"a name without letters", named("\x00\x00\x00\x00\x00\x00\x00\x00\x00a:1"), "name cannot be used: it is empty"},
		{"a name of a role", named("\x00\x00\x00\x00\x00\x00\x00\x00\x06workera:1"), "it is the name of a role"},
		{"an end that no date has", named("\xff\x00\x00\x00\x00\x00\x00\x00\x04box7a:1"), "behind the year 9999"},
		{"a name and no address", named("\x00\x00\x00\x00\x00\x00\x00\x00\x04box7"), "there is no address"},
		{"a role that there is not", proto.Join{Role: "admin", Addresses: []string{"h:1"}}.String(), "newer version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := proto.ParseJoin(tt.text)
			if !errors.Is(err, proto.ErrJoin) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ParseJoin = %+v, %v; want ErrJoin and %q", got, err, tt.want)
			}
		})
	}
}

func TestParseJoinCutShort(t *testing.T) {
	t.Parallel()

	reason := regexp.MustCompile(`^not a join string: (it does not begin with "pm1_"|.*a part of it is missing)$`)
	// Addresses of three lengths in a row: base64 ends in each way that it can.
	for _, address := range []string{"h:1", "h:12", "h:123"} {
		text := join(proto.RoleWorker, address).String()
		for i := range text {
			for _, part := range []string{text[:i], text[i+1:], text[:i] + text[i+1:]} {
				got, err := proto.ParseJoin(part)
				if !errors.Is(err, proto.ErrJoin) || !reason.MatchString(err.Error()) {
					t.Errorf("ParseJoin(%q) = %+v, %v", part, got, err)
				}
			}
		}
	}
}

// A mistyped character must never lead to another bus, role or token.
func TestParseJoinMistyped(t *testing.T) {
	t.Parallel()

	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=., \x00\xff"
	for _, address := range []string{"h:1", "h:12", "h:123"} {
		want := join(proto.RoleWorker, address)
		text := want.String()
		for i := range text {
			for _, c := range []byte(letters) {
				if text[i] == c {
					continue
				}

				mistyped := text[:i] + string([]byte{c}) + text[i+1:]
				got, err := proto.ParseJoin(mistyped)
				// The last character may have bits that stand for nothing.
				if err == nil && (i < len(text)-1 || !cmp.Equal(want, got)) {
					t.Errorf("ParseJoin(%q) = %+v", mistyped, got)
				}
				if err != nil && !errors.Is(err, proto.ErrJoin) {
					t.Errorf("ParseJoin(%q): %v does not wrap ErrJoin", mistyped, err)
				}
			}
		}
	}
}

func FuzzParseJoin(f *testing.F) {
	good := join(proto.RoleCollector, "h:4222", "[::1]:1").String()
	body, err := base64.RawURLEncoding.DecodeString(good[len("pm1_"):])
	if err != nil {
		f.Fatal(err)
	}

	f.Add(good, body[:len(body)-4])
	f.Add(good[:len(good)-1]+"\n"+good[len(good)-1:], []byte{})
	f.Add("pm1_", append([]byte{9}, body[1:len(body)-4]...))
	f.Add("pm2_", body[:49])
	f.Add("", slices.Concat([]byte{0x81}, body[1:49], []byte("\x00\x00\x00\x00\x01\x02\x03\x04\x04box7a:1")))
	f.Fuzz(func(t *testing.T, text string, body []byte) {
		for _, text := range []string{text, seal(body)} { // few texts have the right checksum by chance
			j, err := proto.ParseJoin(text)
			if err != nil {
				if !errors.Is(err, proto.ErrJoin) {
					t.Fatalf("%v does not wrap ErrJoin", err)
				}
				continue
			}

			again, err := proto.ParseJoin(j.String())
			if err != nil || !cmp.Equal(j, again) {
				t.Fatalf("%q is read as %+v, and written again as %+v, %v", text, j, again, err)
			}
		}
	})
}
