package prompt

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// functionNames are the functions that templates may call, besides those of this package alone.
var functionNames = []string{
	"json", "truncate", "default", "join", "and", "or", "not", "len", "index", "slice", "print", "printf", "println",
	"eq", "ne", "lt", "le", "gt", "ge", "html", "js", "urlquery", "call",
}

// syntaxPrefix is the beginning of an error of text/template, with the line.
var syntaxPrefix = regexp.MustCompile(`^template: [^:]*:([0-9]+)(:[0-9]+)?: `)

var unknownFunction = regexp.MustCompile(`function "([^"]*)" not defined`)

// columnHint is the hint for a template in which columns may be in a wrong form.
const columnHint = `a column is {{.NAME}}, or {{index . "NAME"}} if its name has spaces or dots`

// syntaxFaults describe faults of templates by the texts that text/template has for them.
var syntaxFaults = []templateFault{
	newTemplateFault(`unclosed action|unexpected EOF in operand|U\+007D`, "a {{ has no }}", columnHint),
	newTemplateFault(`unexpected EOF`, "an {{if}}, {{with}} or {{range}} has no {{end}}", ""),
	newTemplateFault(`character constant`, "a text has single quotes",
		`a text has double quotes, such as {{default "none" .NAME}}`),
	newTemplateFault(`unterminated (?:raw )?quoted string`, "a text in quotes does not end", ""),
	newTemplateFault(`(?:bad character|unrecognized character in action:) U\+[0-9A-F]+ (.*)`,
		"$1 cannot stand there", columnHint),
	newTemplateFault(`bad number syntax: (.*)`, "$1 is not a number", columnHint),
	newTemplateFault(`unclosed left paren`, "a ( has no )", ""),
	newTemplateFault(`unexpected right paren`, "a ) has no (", ""),
	newTemplateFault(`undefined variable "(.*)"`, "there is no variable $1", columnHint),
	newTemplateFault(`missing value for (if|with|range)`, "{{$1}} has no condition", "for example {{$1 .NAME}}"),
	newTemplateFault(`missing value for|empty command`, "an action has no value", columnHint),
	newTemplateFault(`non executable command`, "there is a value behind a |, where a function is needed", ""),
	newTemplateFault(`unexpected (\{\{(?:end|else|break|continue)\}\})`, "there is a $1 too many", ""),
	newTemplateFault(`unexpected <(.*)> in`, "$1 cannot stand there", columnHint),
	newTemplateFault(`unexpected "?(.*?)"? in`, "$1 cannot stand there", columnHint),
	newTemplateFault(`comment`, "a comment has no */}} directly behind it", ""),
}

// rowFaults describe why a template fails with a row, by the texts that text/template has for it.
var rowFaults = []templateFault{
	newTemplateFault(`wrong number of args for ([^:]*):`, "$1 has the wrong number of values", ""),
	newTemplateFault(`can't evaluate field (\S+) in type`, "the value has no .$1", ""),
	newTemplateFault(`range can't iterate over`, "the value is no list", ""),
	newTemplateFault(`has arguments`, "a column is no function", ""),
	newTemplateFault(`template "([^"]*)" not defined$`, "there is no template $1", ""),
	newTemplateFault(`index out of range`, "the value is shorter", ""),
	newTemplateFault(`slice of|len of`, "the value is no text and no list", ""),
}

// templateFault describes a fault of a template.
type templateFault struct {
	text        *regexp.Regexp
	plain, hint string
}

// newTemplateFault returns the description of the faults for which text/template has a text. $1
// in plain and hint stands for its first group.
func newTemplateFault(text, plain, hint string) templateFault {
	return templateFault{regexp.MustCompile(text), plain, hint}
}

// describeFault returns the description of a text of text/template, and whether there is one.
func describeFault(text string, faults []templateFault) (plain, hint string, ok bool) {
	for _, fault := range faults {
		if found := fault.text.FindStringSubmatchIndex(text); found != nil {
			plain = string(fault.text.ExpandString(nil, fault.plain, text, found))
			return plain, string(fault.text.ExpandString(nil, fault.hint, text, found)), true
		}
	}
	return "", "", false
}

// newSyntaxError returns the error of a template that cannot be parsed. names are the columns
// of the table; nil: they are not known.
func newSyntaxError(flag, template string, names []string, err error) *TemplateError {
	text := err.Error()
	e := &TemplateError{Flag: flag, Hint: hintForAction(template, names)}

	line := ""
	if found := syntaxPrefix.FindStringSubmatch(text); found != nil {
		text = text[len(found[0]):]
		if found[1] != "1" {
			line = "line " + found[1] + ": "
		}
	}

	if found := unknownFunction.FindStringSubmatch(text); found != nil {
		unknown := newFunctionError(flag, found[1], line, names)
		unknown.Hint = cmp.Or(e.Hint, unknown.Hint)

		return unknown
	}

	plain, hint, ok := describeFault(text, syntaxFaults)
	if !ok {
		plain, hint = text, columnHint
	}

	e.Message = line + "the template is broken: " + plain
	e.Hint = cmp.Or(e.Hint, hint)

	return e
}

// newFunctionError returns the error of a function that does not exist. line is the beginning of
// the message, with the place in the template.
func newFunctionError(flag, name, line string, names []string) *TemplateError {
	return &TemplateError{
		Flag:    flag,
		Message: line + "there is no function " + name,
		Hint:    hintForFunction(name, names),
	}
}

// hintForFunction returns the hint for a function that does not exist: another one, a column or
// a text may be meant.
func hintForFunction(name string, names []string) string {
	if nearest := nearestName(name, functionNames, len(name)/3); nearest != "" {
		return fmt.Sprintf("did you mean %s?", nearest)
	}

	if names == nil && fieldName.MatchString(name) {
		return fmt.Sprintf("the column %s is %s, and the text %s is %q", name, formatAction(name), name, name)
	}

	isNear := func(column string) bool { return strings.EqualFold(column, name) }
	if i := slices.IndexFunc(names, isNear); i >= 0 {
		return fmt.Sprintf("the column %s is %s", names[i], Argument(names[i]))
	}

	if nearest := nearestName(name, names, len(name)/3); nearest != "" {
		return fmt.Sprintf("did you mean the column %s?", Argument(nearest))
	}

	return fmt.Sprintf("the functions are json, truncate, default, join and those of Go's text/template; "+
		"a text has double quotes: %q", name)
}
