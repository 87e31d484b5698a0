package busconn

import (
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

// URLs are checked as the client reads them, before anything is connected.
func TestCheckURL(t *testing.T) {
	t.Parallel()

	for url, want := range map[string]string{
		"nats://bus.example:4222":             "",
		"bus.example":                         "",
		"bus.example:4222, other.example":     "",
		"tls://[2001:db8::1]:4222":            "",
		"ws://bus.example:80":                 "",
		"NATS://bus.example":                  "",
		"nats://bob:secret@bus.example":       "",
		"nats://:4222":                        "--nats nats://:4222: there is no host in it",
		"http://bob:secret@bus.example":       "http is not the scheme of a NATS server",
		"nats://bob:secret@bus.example:4222a": "its port is not a number",
		"nats://bob:secret@bus.example:70000": "there is no port 70000",
		"nats://bus exa mple":                 "it is not a URL",
		"pm1_AAAA":                            "--nats: this is a join string, not a URL",
	} {
		err := Options{URL: url}.Check()
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", url, err)
		case want != "" && (exit.Code(err) != exit.CodeUsage || !strings.Contains(err.Error(), want) || exit.Hint(err) == ""):
			t.Errorf("%s: exit code %d: %v, want %q and a hint", url, exit.Code(err), err, want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("the error has the password: %v", err)
		}
	}
}

func FuzzCheckURL(f *testing.F) {
	for _, seed := range []string{"nats://a:b@c:1", "tls://[::1]:1", ",", "//", "nats://%zz", "nats://a@b, ws://c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		err := Options{URL: text}.Check()
		if err != nil && exit.Code(err) != exit.CodeUsage {
			t.Errorf("%q: exit code %d: %v", text, exit.Code(err), err)
		}
	})
}
