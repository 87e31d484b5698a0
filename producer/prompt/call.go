package prompt

import (
	"fmt"
	"slices"
	"text/template/parse"
)

// callForms describe the functions of this package: their arguments, and an example with a
// place for the value.
var callForms = map[string]struct {
	arguments int
	needs     string
	example   string
}{
	"json":     {1, "one value", "{{json %s}}"},
	"truncate": {2, "a number of characters and then a value", "{{truncate 4000 %s}}"},
	"default":  {2, "a text and then the value that may be empty", `{{default "none" %s}}`},
	"join":     {2, "a separator and then a list", `{{join ", " %s}}`},
}

// checkCall returns the error of a call of a function of this package that fails, or does
// nothing, in each row. before are the commands of the pipeline before it, the last of which
// makes its last argument.
func checkCall(cmd *parse.CommandNode, before []*parse.CommandNode, flag string) error {
	function, ok := cmd.Args[0].(*parse.IdentifierNode)
	if !ok {
		return nil
	}

	form, ok := callForms[function.Ident]
	if !ok {
		return nil
	}

	arguments := slices.Clone(cmd.Args[1:])
	if len(before) > 0 {
		var result parse.Node // of a call: not known
		if last := before[len(before)-1]; len(last.Args) == 1 {
			result = last.Args[0]
		}
		arguments = append(arguments, result)
	}

	value := ".NAME"
	for _, arg := range arguments {
		switch arg.(type) {
		case *parse.FieldNode, *parse.VariableNode:
			value = arg.String()
		case *parse.PipeNode:
			value = "(" + arg.String() + ")"
		}
	}

	e := &TemplateError{
		Flag:    flag,
		Message: fmt.Sprintf("%s needs %s", function.Ident, form.needs),
		Hint:    "for example " + fmt.Sprintf(form.example, value),
	}

	switch {
	case len(arguments) != form.arguments:
		return e
	case form.arguments == 1:
		return nil
	case isConstant(arguments[1]):
		return e
	case function.Ident == "truncate" && isConstant(arguments[0]):
		if n, ok := arguments[0].(*parse.NumberNode); !ok || !n.IsInt || n.Int64 < 0 {
			return e
		}
	}

	return nil
}

// isConstant reports whether an argument is a text or a number.
func isConstant(arg parse.Node) bool {
	switch arg.(type) {
	case *parse.StringNode, *parse.NumberNode, *parse.BoolNode:
		return true
	}
	return false
}
