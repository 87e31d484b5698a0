package modelservers

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// Values reach the command as they are, wherever the placeholder stands.
func TestTemplateFill(t *testing.T) {
	t.Parallel()

	values := []string{
		"gemma", "/models/my model.gguf", `it's "so"`, "$HOME `id` $(id)", `back\slash\`, "a;b|c&d>e", "*", "~", "-n", "{port}",
		"line\nbreak", "é",
	}

	for template, want := range map[string]string{
		`printf '[%s]' {x}`:                              "[VALUE]",
		`printf '[%s]' --model={x}`:                      "[--model=VALUE]",
		`printf '[%s]' "a {x} b" c`:                      "[a VALUE b][c]",
		`printf '[%s]' 'a {x} b' {x}`:                    "[a VALUE b][VALUE]",
		`printf '[%s]' a"b{x}c"d{x}`:                     "[abVALUEcdVALUE]",
		`MODEL={x} && printf '[%s]' "$MODEL"`:            "[VALUE]",
		`sh -c 'printf "[%s]" "$1"' _ {x}`:               "[VALUE]",
		`printf '[%s]' "$(printf '%s.' {x})"`:            "[VALUE.]",
		`printf '[%s]' {{x}} '{"x": {{x}}}' "${x:-{x}}"`: `[{x}][{"x": {x}}][VALUE]`,
	} {
		parsed, err := ParseTemplate(template)
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}

		for _, value := range values {
			if strings.Contains(template, "${x") && value != "gemma" { // quotes in an expansion have rules of their own
				continue
			}

			command, err := parsed.Fill(map[string]string{"x": value})
			if err != nil {
				t.Errorf("%s with %q: %v", template, value, err)
				continue
			}

			out, err := exec.Command("/bin/sh", "-c", command).CombinedOutput()
			if got, want := string(out), strings.ReplaceAll(want, "VALUE", value); err != nil || got != want {
				t.Errorf("%s with %q: %s prints %q, want %q: %v", template, value, command, got, want, err)
			}
		}
	}
}

// An empty value leaves no word, and what has no value stays as it is.
func TestTemplateFillSome(t *testing.T) {
	t.Parallel()

	parsed, err := ParseTemplate(`vllm serve {model} {eager} --port {port} --seqs={max-seqs}`)
	if err != nil {
		t.Fatal(err)
	}

	if got, want := parsed.Names(), []string{"model", "eager", "port", "max-seqs"}; !slices.Equal(got, want) {
		t.Errorf("placeholders %q, want %q", got, want)
	}

	got, err := parsed.Fill(map[string]string{
		"model":    "google/gemma-3-4b-it",
		"eager":    "",
		"max-seqs": "64",
	})
	if want := "vllm serve google/gemma-3-4b-it  --port {port} --seqs=64"; got != want || err != nil {
		t.Errorf("the command is %q, want %q: %v", got, want, err)
	}

	if parsed.Has("gpu") || !parsed.Has("port") {
		t.Error("the command has {port} and not {gpu}")
	}
}

// Braces that are no placeholders stay.
func TestTemplateOtherBraces(t *testing.T) {
	t.Parallel()

	for _, text := range []string{
		`vllm serve m --override-generation-config '{"temperature": 0}'`,
		`docker run --format '{{.State}}' ${IMAGE} {a,b} {} { x`,
		`f() { echo; }; f`,
	} {
		parsed, err := ParseTemplate(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}

		if got, err := parsed.Fill(map[string]string{"temperature": "x", "a": "y", "IMAGE": "z"}); got != text || err != nil {
			t.Errorf("%s becomes %s: %v", text, got, err)
		}
	}
}

// What would not reach the server as it is is refused.
func TestTemplateRefused(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]string{
		"  ":                        "there is no command",
		"vllm serve 'gemma":         "the shell cannot read it: reached EOF without closing quote `'`",
		"a\nvllm serve (":           "the shell cannot read it: line 2: ",
		"x <<EOF\n{x}\nEOF":         "{x} is in a here-document, where no value is filled in",
		"vllm serve gemma # {seqs}": "{seqs} is not in a word of the command",
	} {
		if _, err := ParseTemplate(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}

	for text, refused := range map[string]bool{
		`bash -c "vllm serve {x}"`:        true,
		`env A=b sh -ec 'vllm serve {x}'`: true,
		`ssh gpu1 vllm serve {x}`:         true,
		`eval vllm serve {x}`:             true,
		`sh -c 'vllm serve "$1"' _ {x}`:   false,
		`docker run vllm "{x}"`:           false,
	} {
		parsed, err := ParseTemplate(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}

		if _, err := parsed.Fill(map[string]string{"x": "a b"}); err != nil != refused {
			t.Errorf("%s with a value of two words: %v, want a refusal: %t", text, err, refused)
		}

		if _, err := parsed.Fill(map[string]string{"x": "org/model-1.5"}); err != nil {
			t.Errorf("%s with a plain value: %v", text, err)
		}
	}

	parsed, err := ParseTemplate("x {x}")
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"a\x00b", "a\xff"} {
		if _, err := parsed.Fill(map[string]string{"x": value}); err == nil {
			t.Errorf("the value %q is not refused", value)
		}
	}
}

// The program has the name that people know.
func TestTemplateProgram(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]string{
		"CUDA_VISIBLE_DEVICES=0 vllm serve {model}":         "vllm",
		"python3 -m sglang.launch_server --port {port}":     "sglang",
		"docker run vllm/vllm-openai:v0.11 --model {model}": "vllm",
		"/opt/llama/bin/llama-server -m {model}":            "llama-server",
		"./serve.sh {model}":                                "serve.sh",
		"cd /srv && exec ./my-server --listen :{port}":      "my-server",
	} {
		parsed, err := ParseTemplate(text)
		if err != nil || parsed.Program() != want {
			t.Errorf("%s: the program is %q, want %q: %v", text, parsed.Program(), want, err)
		}
	}
}

// A command that can be read is filled with any value, and that stays one word with this value.
func FuzzTemplate(f *testing.F) {
	f.Add("vllm serve {x} --port {port}", "a b")
	f.Add(`bash -c "serve '{x}'"`, "a")
	f.Add(`a "{x}" '{x}' <<E`+"\n{x}\nE", "'")
	f.Add("{x}", "$(id)")
	f.Add("${x} {{x}} {x", "`")

	f.Fuzz(func(t *testing.T, text, value string) {
		parsed, err := ParseTemplate(text)
		if err != nil {
			return
		}

		if filled, err := parsed.Fill(nil); err != nil || !strings.Contains(text, "{{") && filled != text {
			t.Errorf("%q without values becomes %q: %v", text, filled, err)
		}

		parsed.Fill(map[string]string{"x": value})
	})
}

// FuzzTemplateValue fills a value into each kind of place, and reads it as a shell does.
func FuzzTemplateValue(f *testing.F) {
	for _, value := range []string{"a", "it's", `"`, `\`, "$x", "`id`", "a\nb", "\\\n", "!", "{x}", "é"} {
		f.Add(value)
	}

	f.Fuzz(func(t *testing.T, value string) {
		if value == "" || !utf8.ValidString(value) || strings.ContainsAny(value, "\x00\r") {
			return // mvdan.cc/sh drops carriage returns, and a shell keeps them
		}

		for text, want := range map[string]string{
			"serve {x}":       value,
			"serve --m={x}":   "--m=" + value,
			"serve 'a{x}b'":   "a" + value + "b",
			`serve "a{x}b"`:   "a" + value + "b",
			`serve a{x}"{x}"`: "a" + value + value,
		} {
			parsed, err := ParseTemplate(text)
			if err != nil {
				t.Fatal(err)
			}

			command, err := parsed.Fill(map[string]string{"x": value})
			if err != nil {
				t.Fatal(err)
			}

			list := readScript(command)
			if len(list) != 1 || !slices.Equal(list[0].words, []string{"serve", want}) {
				t.Errorf("%s with %q becomes %s, which is read as %q", text, value, command, list)
			}
		}
	})
}
