package modelservers

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// The programs that [FindLaunch] finds.
const (
	VLLM        = "vllm"
	SGLang      = "sglang"
	LlamaServer = "llama-server"
)

// ErrNoLaunch means that a command starts no program that [FindLaunch] knows.
var ErrNoLaunch = errors.New("it starts none of vllm serve, sglang serve, python -m sglang.launch_server and llama-server")

// Launch is the place of a command that starts a model server, to which flags can be added.
type Launch struct {
	// Program is VLLM, SGLang or LlamaServer.
	Program string

	script  string
	end     int // where the last word of the server's command ends
	command simpleCommand
	flags   []string // the words after the program
	inner   *Launch  // in the script of a shell, which is the word from begin to end; nil: here
	begin   int
}

// FindLaunch finds the model server that a command of the shell starts, also in the script of a shell that it calls.
// The error is [ErrNoLaunch], or says why no flags can be added: the shell cannot read the command, it starts several
// servers, or its server is in a script that the shell puts together.
func FindLaunch(script string) (*Launch, error) {
	file, err := syntax.NewParser().Parse(strings.NewReader(script), "")
	if err != nil {
		return nil, fmt.Errorf("the shell cannot read it: %w", err)
	}

	var found []*Launch
	var fault error
	syntax.Walk(file, func(node syntax.Node) bool {
		if call, ok := node.(*syntax.CallExpr); ok && len(call.Args) > 0 {
			l, err := readLaunch(script, call)
			fault = cmp.Or(fault, err)
			if l != nil {
				found = append(found, l)
			}
		}
		return true
	})

	switch {
	case fault != nil:
		return nil, fault
	case len(found) == 0:
		return nil, ErrNoLaunch
	case len(found) > 1:
		return nil, fmt.Errorf("it names %d model servers", len(found))
	}

	return found[0], nil
}

// readLaunch returns the launch that a simple command of a script is or has, or nil.
func readLaunch(script string, call *syntax.CallExpr) (*Launch, error) {
	c := readCall(call)
	l := &Launch{script: script, end: int(call.Args[len(call.Args)-1].End().Offset()), command: c}
	if text := c.shellScript(); text != "" {
		inner, err := FindLaunch(text)
		if errors.Is(err, ErrNoLaunch) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}

		word := findLiteral(call, text)
		if word == nil {
			return nil, errors.New("its model server is in a script with values of the outer shell: write the script in single quotes")
		}

		l.Program, l.inner = inner.Program, inner
		l.begin, l.end = int(word.Pos().Offset()), int(word.End().Offset())

		return l, nil
	}

	program, at := c.findProgram()
	if program == "" {
		return nil, nil
	}
	l.Program, l.flags = program, c.words[at+1:]

	return l, nil
}

// findLiteral returns the word of a command that is a text and nothing else, or nil.
func findLiteral(call *syntax.CallExpr, text string) *syntax.Word {
	none := &expand.Config{Env: expand.FuncEnviron(func(string) string { return "" })}
	for _, word := range call.Args {
		isText := true
		syntax.Walk(word, func(node syntax.Node) bool {
			switch node.(type) {
			case *syntax.ParamExp, *syntax.CmdSubst, *syntax.ArithmExp, *syntax.ProcSubst:
				isText = false
			}
			return true
		})

		if fields, err := expand.Fields(none, word); isText && err == nil && slices.Equal(fields, []string{text}) {
			return word
		}
	}

	return nil
}

// findProgram returns the known program that can have flags, and the last of the words that name it; empty: none.
func (c simpleCommand) findProgram() (program string, at int) {
	for i, word := range c.words {
		next := ""
		if i+1 < len(c.words) {
			next = c.words[i+1]
		}

		switch name := path.Base(word); {
		case name == "vllm" && next == "serve":
			return VLLM, i + 1
		case name == "sglang" && next == "serve":
			return SGLang, i + 1
		case word == "-m" && next == "vllm.entrypoints.openai.api_server":
			return VLLM, i + 1
		case word == "-m" && next == "sglang.launch_server":
			return SGLang, i + 1
		case name == "llama-server":
			return LlamaServer, i
		case c.isRemote() && strings.Contains(word, "vllm/vllm-openai"): // an image that starts the server
			return VLLM, i
		case c.isRemote() && strings.Contains(word, "/llama.cpp:server"):
			return LlamaServer, i
		}
	}

	return "", -1
}

// Sets reports whether the command sets one of some flags, or one of some variables of the environment, which have no
// dash at the beginning. An underscore in a flag counts as a dash, and for vLLM and SGLang also the beginning of a
// flag as the flag, as their parsers have it.
func (l *Launch) Sets(names ...string) bool {
	if l.inner != nil {
		return l.inner.Sets(names...) || slices.ContainsFunc(names, l.command.setsVariable)
	}

	return slices.ContainsFunc(names, func(name string) bool {
		if !strings.HasPrefix(name, "-") {
			return l.command.setsVariable(name)
		}

		return slices.ContainsFunc(l.flags, func(word string) bool {
			flag, _, _ := strings.Cut(word, "=")
			if !strings.HasPrefix(flag, "--") {
				return flag == name
			}

			flag = strings.ReplaceAll(flag, "_", "-")
			isShort := l.Program != LlamaServer && len(flag) > len("--") && strings.HasPrefix(name, flag)

			return flag == name || isShort
		})
	})
}

// value returns the value of a flag under one of its names, the last if there are several; empty: none. An
// underscore in a flag counts as a dash.
func (l *Launch) value(names ...string) (value string) {
	if l.inner != nil {
		return l.inner.value(names...)
	}

	for i, word := range l.flags {
		flag, after, joined := strings.Cut(word, "=")
		if strings.HasPrefix(flag, "--") {
			flag = strings.ReplaceAll(flag, "_", "-")
		}

		switch {
		case !slices.Contains(names, flag):
		case joined:
			value = after
		case i+1 < len(l.flags):
			value = l.flags[i+1]
		}
	}

	return value
}

// setsVariable reports whether the command, or the environment of this process, sets a variable.
func (c simpleCommand) setsVariable(name string) bool {
	_, own := c.set[name]
	_, ours := os.LookupEnv(name)
	// env NAME=value, and docker run -e NAME=value
	byWord := slices.ContainsFunc(c.words, func(word string) bool { return strings.HasPrefix(word, name+"=") })

	return own || ours || byWord
}

// Add returns the command with words after the last one of the server.
func (l *Launch) Add(words ...string) string {
	if l.inner != nil {
		return l.script[:l.begin] + quoteWord(l.inner.Add(words...)) + l.script[l.end:]
	}

	added := ""
	for _, word := range words {
		added += " " + quoteWord(word)
	}

	rest := l.script[l.end:]
	if strings.HasPrefix(rest, "<") || strings.HasPrefix(rest, ">") {
		added += " " // the shell takes digits before one for its file descriptor
	}

	return l.script[:l.end] + added + rest
}

// quoteWord returns a text as a word of the shell.
func quoteWord(text string) string {
	if isPlainWord(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
