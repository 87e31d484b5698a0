package prompt

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/template"
)

// comparisons are the functions of text/template that compare values. They also compare a text
// with a number or a truth value, since all cells of CSV are texts: a table has the same
// prompts in each format.
var comparisons = template.FuncMap{
	"eq": func(a any, others ...any) (bool, error) {
		if len(others) == 0 {
			return false, &CellError{Reason: "eq needs two values"}
		}

		for _, b := range others {
			if isEqual, err := equalValues(a, b); isEqual || err != nil {
				return isEqual, err
			}
		}

		return false, nil
	},
	"ne": func(a, b any) (bool, error) {
		isEqual, err := equalValues(a, b)
		return !isEqual, err
	},
	"lt": func(a, b any) (bool, error) {
		order, err := compareValues("lt", a, b)
		return order < 0, err
	},
	"le": func(a, b any) (bool, error) {
		order, err := compareValues("le", a, b)
		return order <= 0, err
	},
	"gt": func(a, b any) (bool, error) {
		order, err := compareValues("gt", a, b)
		return order > 0, err
	},
	"ge": func(a, b any) (bool, error) {
		order, err := compareValues("ge", a, b)
		return order >= 0, err
	},
}

// equalValues reports whether two values are equal.
func equalValues(a, b any) (bool, error) {
	for _, v := range []any{a, b} {
		switch v.(type) {
		case []any, map[string]any, rowData:
			return false, &CellError{Reason: "a list or an object cannot be compared"}
		}
	}

	if order, ok := compareNumbers(a, b); ok {
		return order == 0, nil
	}

	if truth, ok := a.(bool); ok {
		a, b = b, truth
	}

	if truth, ok := b.(bool); ok {
		if text, ok := a.(string); ok {
			return strings.EqualFold(text, strconv.FormatBool(truth)), nil
		}
	}

	return a == b, nil
}

// compareValues returns the order of two texts or two numbers.
func compareValues(function string, a, b any) (int, error) {
	if order, ok := compareNumbers(a, b); ok {
		return order, nil
	}

	text, isText := a.(string)
	other, isOther := b.(string)
	if isText && isOther {
		return cmp.Compare(text, other), nil
	}

	return 0, &CellError{Reason: fmt.Sprintf("%s cannot compare %s with %s",
		function, describeValue(a), describeValue(b))}
}

// describeValue describes a value for a person.
func describeValue(v any) string {
	switch v := v.(type) {
	case nil:
		return "an empty cell"
	case string:
		if strings.TrimSpace(v) == "" {
			return "an empty cell"
		}
		return "a text"
	case bool:
		return strconv.FormatBool(v)
	case []any:
		return "a list"
	case map[string]any, rowData:
		return "an object"
	}

	return "a number"
}

// compareNumbers returns the order of two numbers, of which one may be a text.
func compareNumbers(a, b any) (order int, ok bool) {
	_, isText := a.(string)
	_, isOther := b.(string)
	if isText && isOther {
		return 0, false
	}

	whole, isWhole := toInt(a)
	otherWhole, isOtherWhole := toInt(b)
	if isWhole && isOtherWhole {
		return cmp.Compare(whole, otherWhole), true
	}

	number, isNumber := toFloat(a)
	otherNumber, isOtherNumber := toFloat(b)

	return cmp.Compare(number, otherNumber), isNumber && isOtherNumber
}

// toInt returns a value as an integer.
func toInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case uint64:
		return int64(v), int64(v) >= 0
	case json.Number:
		n, err := strconv.ParseInt(string(v), 10, 64)
		return n, err == nil
	case string:
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		return n, err == nil
	}

	return 0, false
}

// toFloat returns a value as a floating-point number.
func toFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case uint64:
		return float64(v), true
	case json.Number:
		n, err := strconv.ParseFloat(string(v), 64)
		return n, err == nil
	case string:
		n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		return n, err == nil
	}

	n, ok := toInt(v)

	return float64(n), ok
}

// convertNumbers returns a value with Go's numbers in place of JSON's, which a template takes for
// texts. A number stays if Go would print it in another form.
func convertNumbers(v any) any {
	printed := func(n any) string { return string(valueOf(n).AppendText(nil)) }

	switch v := v.(type) {
	case json.Number:
		if n, ok := toInt(v); ok && printed(n) == string(v) {
			return n
		}
		if n, ok := toFloat(v); ok && printed(n) == string(v) {
			return n
		}
	case []any:
		for i := range v {
			v[i] = convertNumbers(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = convertNumbers(v[name])
		}
	}

	return v
}
