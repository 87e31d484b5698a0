package prompt

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/producer/table"
)

// fieldName matches the names of columns that stand behind a dot in a template.
var fieldName = regexp.MustCompile(`^[\pL_][\pL_\p{Nd}]*$`)

// Reference returns the value of a column as an action of a template has it: .text, or index .
// "a b" if the name has spaces or dots.
func Reference(column string) string {
	if fieldName.MatchString(column) {
		return "." + column
	}
	return "index . " + strconv.Quote(column)
}

// Argument returns the value of a column as an argument of a function of a template: .text, or
// (index . "a b").
func Argument(column string) string {
	if reference := Reference(column); reference[0] == '.' {
		return reference
	}
	return "(" + Reference(column) + ")"
}

// namesOf returns the names of columns.
func namesOf(columns []table.Column) (names []string) {
	for _, c := range columns {
		names = append(names, c.Name)
	}
	return names
}

// hintForColumn returns the hint for the name of a column that the table does not have. format
// formats the name of a column in the hint.
func hintForColumn(name string, names []string, format func(name string) string) string {
	nearest := NearestName(name, names)
	switch {
	case nearest != "":
		return fmt.Sprintf("did you mean %s?", format(nearest))
	case len(names) == 0:
		return ""
	case len(names) == 1:
		return "the one column is " + format(names[0])
	}

	return "the table has the columns " + listNames(names)
}

// formatAction returns the action that prints a column.
func formatAction(name string) string { return "{{" + Reference(name) + "}}" }

// listNames lists the first few names.
func listNames(names []string) string {
	const most = 10
	if more := len(names) - most; more > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}

// newColumnError returns the error of a column that the table does not have. text is the
// template, empty if a flag has the name alone.
func newColumnError(flag, name, text string, cfg Config) *TemplateError {
	e := &TemplateError{
		Flag:    flag,
		Message: "the table has no column " + name,
		Column:  name,
	}

	if cfg.Varied {
		e.Message = "the first row has no column " + name
	}

	format := func(name string) string { return name }
	if text != "" {
		format = formatAction
	}

	names := namesOf(cfg.Columns)
	if e.Hint = hintForAction(text, names); e.Hint == "" {
		e.Hint = hintForColumn(name, names, format)
		if cfg.Header && !strings.HasPrefix(e.Hint, "did") {
			e.Hint += "; if its first line is no header, give --columns, and for another separator --delimiter"
		}
	}

	if cfg.Varied && text != "" && !strings.HasPrefix(e.Hint, "did") {
		e.Hint += fmt.Sprintf("; if others have it, write {{default %q %s}}", "none", Argument(name))
	}

	return e
}

// action matches the action of a template, whether or not it ends well.
var action = regexp.MustCompile(`\{\{-?([^{}]*)`)

// hintForAction returns the right form of a column that an action of a template has in a form that
// text/template does not take, such as {{text}} or {{.a b}}. It is empty if there is none.
func hintForAction(text string, names []string) string {
	// A name may be the beginning of another one.
	names = slices.SortedFunc(slices.Values(names), func(a, b string) int { return len(b) - len(a) })

	for _, found := range action.FindAllStringSubmatch(text, -1) {
		value, _, _ := strings.Cut(found[1], "|")
		value = strings.TrimSpace(strings.TrimSuffix(value, "-"))
		if strings.ContainsAny(value, "\"`") { // the column's name in index, or a text
			continue
		}

		isMeant := func(name string) bool { return strings.EqualFold(strings.TrimLeft(value, ".$"), name) }
		if i := slices.IndexFunc(names, isMeant); i >= 0 {
			if value == Reference(names[i]) {
				continue
			}
			return fmt.Sprintf("the column %s is %s", names[i], formatAction(names[i]))
		}

		isArgument := func(name string) bool {
			return !fieldName.MatchString(name) && name != "" && strings.Contains(value, "."+name)
		}
		if i := slices.IndexFunc(names, isArgument); i >= 0 {
			return fmt.Sprintf("the column %s is %s there", names[i], Argument(names[i]))
		}
	}

	return ""
}

// inBraces matches a name in single braces, as other languages have it. A word of LaTeX before
// it is part of the match.
var inBraces = regexp.MustCompile(`(\\[a-zA-Z]+)?\{([^{}]+)\}`)

// findInBraces returns the first of the names that a text has in single braces; empty if there
// is none. A name of digits counts regular expressions, such as \d{3}.
func findInBraces(text string, names []string) string {
	for _, found := range inBraces.FindAllStringSubmatch(text, -1) {
		name := strings.TrimSpace(found[2])
		if found[1] == "" && strings.Trim(name, "0123456789") != "" && slices.Contains(names, name) {
			return name
		}
	}
	return ""
}

// newBracesError returns the error of a text with the name of a column in single braces.
func newBracesError(flag, name string) *TemplateError {
	return &TemplateError{
		Flag:    flag,
		Message: fmt.Sprintf("{%s} is not replaced", name),
		Hint: fmt.Sprintf(`the column %s is %s; for the braces themselves, write {{"{%s}"}}`,
			name, formatAction(name), name),
	}
}

// newSameError returns the error of a prompt that has no column.
func newSameError(text string, names []string) *TemplateError {
	e := &TemplateError{
		Flag:    promptFlag,
		Message: "it names no column, so all rows would have the same prompt",
		Hint:    "a column is {{.NAME}}",
	}

	if e.Hint = hintForAction(text, names); e.Hint != "" {
		return e
	}

	// The name may be there in the form of another language, such as $text or <text>.
	isThere := func(name string) bool {
		return name != "" && regexp.MustCompile(`[$<%@\[]`+regexp.QuoteMeta(name)+`\b`).MatchString(text)
	}
	switch i := slices.IndexFunc(names, isThere); {
	case i >= 0:
		e.Hint = fmt.Sprintf("the column %s is %s", names[i], formatAction(names[i]))
	case len(names) == 0:
		e.Hint = "a column is {{.NAME}}"
	case len(names) == 1:
		e.Hint = fmt.Sprintf("the one column is %s", formatAction(names[0]))
	default:
		e.Hint = fmt.Sprintf("a column is %s; the table has the columns %s", formatAction(names[0]), listNames(names))
	}

	return e
}

// NearestName returns the one of the names that was probably meant with a name that is none of them; empty if none
// is near.
func NearestName(name string, names []string) string {
	return nearestName(name, names, max(1, len(name)/3))
}

// nearestName returns the name that is most like a name, empty if none is as near as most edits.
func nearestName(name string, names []string, most int) string {
	nearest, least := "", most+1
	for _, other := range names {
		if n := countEdits(strings.ToLower(name), strings.ToLower(other)); n < least {
			nearest, least = other, n
		}
	}
	return nearest
}

// countEdits counts the bytes to insert, remove or replace that make one text of another
// (Levenshtein, 1965).
func countEdits(a, b string) int {
	if max(len(a), len(b)) > 100 {
		return 100
	}

	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}

	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := corner
			if a[i] != b[j] {
				replaced++
			}
			corner = row[j+1]
			row[j+1] = min(replaced, row[j+1]+1, row[j]+1)
		}
	}

	return row[len(b)]
}
