package proto

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestErrorText(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, body, want string }{
		{"OpenAI", `{"error":{"message":"bad key","type":"x","code":401}}`, "bad key"},
		{"Ollama", `{"error":"model \"x\" not found"}`, `model "x" not found`},
		{"FastAPI", `{"detail":"Not Found"}`, "Not Found"},
		{"FastAPI, a list", `{"detail":[{"loc":["body"],"msg":"field required","type":"missing"}]}`, "field required"},
		{"vLLM of old", `{"object":"error","message":"too long","code":400}`, "too long"},
		{"nothing known", `{"code":7}`, `{"code":7}`},
		{"an empty error", `{"error":{}}`, `{}`},
		{"plain text", "no\r\nmore", "no"},
		{"a page", "<html>\r\n<head><title>502 Bad\n Gateway</title></head>\r\n</html>", "502 Bad Gateway"},
		{"a page, quoted", `"<!doctype html>\n<TITLE lang=en> Sign in </TITLE>"`, "Sign in"},
		{"a page without a title", "<html><title> </title>\nno</html>", "<html><title> </title>"},
		{"plain text, quoted", `"no way\nmore"`, "no way"},
		{"empty", "", ""},
		{"escape sequences", `{"message":"a\u001b[2Jb\u202ec"}`, "a [2Jb c"},
		{"not UTF-8", "a\xff", "a"},
	} {
		if got := ErrorText([]byte(tt.body)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzErrorText(f *testing.F) {
	f.Add([]byte(`{"error":{"message":"bad key"}}`))
	f.Add([]byte(`{"detail":[{"msg":"x"}]}`))
	f.Add([]byte("\"\\ud83d\x1b\""))
	f.Add([]byte(strings.Repeat("ä", 300)))
	f.Add([]byte("<title>\x1b[2J</title>"))
	f.Fuzz(func(t *testing.T, body []byte) {
		text := ErrorText(body)
		if len(text) > maxErrorText+3 || !utf8.ValidString(text) || Printable(text) != text ||
			strings.Contains(text, "\n") {
			t.Errorf("%q of %q", text, body)
		}
	})
}
