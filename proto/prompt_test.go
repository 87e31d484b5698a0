package proto

import (
	"github.com/promptmill/promptmill/proto/jsonscan"
	"testing"
)

func TestFindPrompt(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ body, tools, instructions, text string }{
		{`{"model":"m","messages":[{"role":"user"}],"tools":[1]}`, `[1]`, ``, `[{"role":"user"}]`},
		{`{"input":"a","instructions":"b"}`, ``, `"b"`, `"a"`},
		{`{"prompt" : "a", "messages" : null}`, ``, ``, `"a"`},
		{`{"model":"m"}`, ``, ``, ``},
		{``, ``, ``, ``},
		{`{"prompt":`, ``, ``, ``},
	} {
		var scan jsonscan.Scanner
		p := FindPrompt(&scan, []byte(tt.body))
		if string(p.Tools) != tt.tools || string(p.Instructions) != tt.instructions || string(p.Text) != tt.text {
			t.Errorf("%s: tools %s, instructions %s, text %s", tt.body, p.Tools, p.Instructions, p.Text)
		}
	}
}

// FuzzFindPrompt: whatever the body, no part of it is found where there is none.
func FuzzFindPrompt(f *testing.F) {
	f.Add([]byte(`{"messages":[],"tools":null}`))
	f.Add([]byte(`{"prompt":`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var scan jsonscan.Scanner
		p := FindPrompt(&scan, body)
		if n := len(p.Tools) + len(p.Instructions) + len(p.Text); n > len(body) {
			t.Errorf("%d bytes of a prompt in %d", n, len(body))
		}
	})
}
