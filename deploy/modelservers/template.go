package modelservers

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"mvdan.cc/sh/v3/syntax"
)

// Template is a command of a shell with placeholders, such as vllm serve {model} --port {port}.
//
// A placeholder is a name in braces, of letters, digits, - and _, that begins with a letter. {{name}} stands for the
// text {name}, and ${name} is a variable of the shell. Other braces, such as those of JSON, mean nothing here.
//
// A value is filled in so that the shell reads it as it is, spaces and quotes with it: as one word, or, where the
// placeholder is inside quotes or a word, as a part of theirs. An empty value leaves nothing: a placeholder that is a
// word by itself leaves no word.
type Template struct {
	text    string
	program string
	holes   []hole
}

// hole is a placeholder at its place in the text.
type hole struct {
	name       string // empty: {{name}}, which loses a pair of braces
	begin, end int
	quotes     quoting
	nested     bool // in the script of a shell within the command
}

// quoting is the kind of quotes around a place of a shell's command.
type quoting int

const (
	unquoted quoting = iota
	singleQuoted
	doubleQuoted
)

// placeholder matches a placeholder, or one in braces, with what is before it.
var placeholder = regexp.MustCompile(`\{\{[A-Za-z][A-Za-z0-9_-]*\}\}|\$?\{[A-Za-z][A-Za-z0-9_-]*\}`)

// ParseTemplate reads a command. The error says what the shell could not read, or which placeholder has a place that
// no value can have.
func ParseTemplate(text string) (*Template, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("there is no command")
	}

	file, err := syntax.NewParser().Parse(strings.NewReader(text), "")
	if err != nil {
		return nil, fmt.Errorf("the shell cannot read it: %s", describeSyntaxError(err))
	}

	server := findServer(readScript(strings.ReplaceAll(text, "{port}", usualPorts["vllm"])))
	t := &Template{text: text, program: nameProgram(server)}
	for _, at := range placeholder.FindAllStringIndex(text, -1) {
		h := hole{
			begin: at[0],
			end:   at[1],
			name:  strings.Trim(text[at[0]:at[1]], "{}"),
		}

		switch {
		case text[at[0]] == '$':
			continue
		case text[at[0]+1] == '{':
			h.name = ""
		default:
			if err := h.findQuotes(file); err != nil {
				return nil, err
			}
		}

		t.holes = append(t.holes, h)
	}

	return t, nil
}

// describeSyntaxError returns what is wrong with a command, and where if it has several lines.
func describeSyntaxError(err error) string {
	parse, ok := errors.AsType[syntax.ParseError](err)
	switch {
	case !ok:
		return err.Error()
	case parse.Pos.Line() > 1:
		return fmt.Sprintf("line %d: %s", parse.Pos.Line(), parse.Text)
	}
	return parse.Text
}

// nameProgram returns the name of a command's program for people.
func nameProgram(c simpleCommand) string {
	words := slices.DeleteFunc(slices.Clone(c.words), func(word string) bool { return word == "exec" })
	if len(words) == 0 {
		return ""
	}
	return cmp.Or(c.knownProgram(), path.Base(words[0]))
}

// findQuotes finds the quotes around a placeholder, which are those of the innermost node there.
func (h *hole) findQuotes(file *syntax.File) (err error) {
	covers := func(n syntax.Node) bool {
		return int(n.Pos().Offset()) <= h.begin && h.end <= int(n.End().Offset())
	}

	inWord := false
	syntax.Walk(file, func(node syntax.Node) bool {
		if node == nil || !covers(node) {
			return false
		}

		switch node := node.(type) {
		case *syntax.CallExpr:
			h.nested = h.nested || isInScript(node, covers)
		case *syntax.Word:
			inWord, h.quotes = true, unquoted
		case *syntax.SglQuoted:
			h.quotes = singleQuoted
		case *syntax.DblQuoted:
			h.quotes = doubleQuoted
		case *syntax.Redirect:
			if node.Hdoc != nil && covers(node.Hdoc) {
				err = fmt.Errorf("{%s} is in a here-document, where no value is filled in", h.name)
			}
		}

		return true
	})

	if err == nil && !inWord {
		err = fmt.Errorf("{%s} is not in a word of the command", h.name)
	}

	return err
}

// isInScript reports whether a command is a shell with -c, or one that runs a command elsewhere, and covers holds for
// a quoted text of it: another shell reads that again.
func isInScript(call *syntax.CallExpr, covers func(syntax.Node) bool) bool {
	var before []string
	for _, word := range call.Args {
		if !covers(word) {
			before = append(before, word.Lit())
			continue
		}

		isQuoted := !slices.ContainsFunc(word.Parts, func(p syntax.WordPart) bool {
			_, ok := p.(*syntax.Lit)
			return ok && covers(p)
		})
		shell := simpleCommand{words: append(before, "script")}.shellScript() != ""

		return isQuoted && shell || slices.Contains(before, "ssh") || slices.Contains(before, "eval")
	}

	return false
}

// Program returns the name of the program for people: vllm, or the last part of the path of another.
func (t *Template) Program() string { return t.program }

// Names returns the names of the placeholders, each once, in their order.
func (t *Template) Names() (names []string) {
	for _, h := range t.holes {
		if h.name != "" && !slices.Contains(names, h.name) {
			names = append(names, h.name)
		}
	}
	return names
}

// Has reports whether the command has a placeholder.
func (t *Template) Has(name string) bool { return slices.Contains(t.Names(), name) }

// Fill returns the command with the values of placeholders, by their names. Those without a value stay as they are.
// It fails for a value that would not reach the server as it is.
func (t *Template) Fill(values map[string]string) (string, error) {
	var b strings.Builder
	rest := 0
	for _, h := range t.holes {
		b.WriteString(t.text[rest:h.begin])
		rest = h.end

		value, ok := values[h.name]
		switch {
		case h.name == "":
			b.WriteString(t.text[h.begin+1 : h.end-1])
		case !ok:
			b.WriteString(t.text[h.begin:h.end])
		case strings.ContainsRune(value, 0) || !utf8.ValidString(value):
			return "", fmt.Errorf("the value %q of {%s} is not text in UTF-8", value, h.name)
		case h.nested && !isPlainWord(value):
			return "", fmt.Errorf("the value %q of {%s} is in the script of another shell, which would not read it as one word; "+
				"a script gets it as an argument: sh -c 'serve \"$1\"' _ {%s}", value, h.name, h.name)
		default:
			b.WriteString(h.quote(value))
		}
	}

	b.WriteString(t.text[rest:])

	return b.String(), nil
}

// quote returns a value as the shell must have it at the place of the placeholder.
func (h hole) quote(value string) string {
	switch {
	case h.quotes == singleQuoted:
		return strings.ReplaceAll(value, "'", `'\''`)
	case h.quotes == doubleQuoted:
		return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(value)
	case value == "", isPlainWord(value):
		return value
	}

	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// isPlainWord reports whether a shell reads a text as one word without quotes.
func isPlainWord(text string) bool { return plainWord.MatchString(text) }

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:=,+@%-]+$`)
