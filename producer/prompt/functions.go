package prompt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"text/template"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/producer/table"
)

// cell is a value with the name of its column.
type cell struct {
	table.Value
	column string
}

// String returns the value as it is printed.
func (c cell) String() string { return string(c.AppendText(nil)) }

// funcs returns the functions of templates. Those with an underscore are put into templates by
// their analysis, which refuses them elsewhere.
func (r *Renderer) funcs() template.FuncMap {
	apply := func(name string, arg, v any) (any, error) {
		c, isCell := v.(cell)
		if !isCell {
			c.Value = valueOf(v)
		}

		result, err := r.applyCall(call{name: name, arg: valueOf(arg)}, c)
		if err != nil {
			return nil, err
		}

		switch {
		case name != "default":
			return string(result.AppendText(nil)), nil
		case isCell:
			return cell{result, c.column}, nil
		case c.IsEmpty():
			return arg, nil
		}

		return v, nil
	}

	functions := template.FuncMap{
		"json": func(v any) (any, error) {
			if _, ok := v.(rowData); ok {
				return string(r.appendRow(nil)), nil
			}
			return apply("json", nil, v)
		},
		"truncate": func(n, v any) (any, error) { return apply("truncate", n, v) },
		"default":  func(value, v any) (any, error) { return apply("default", value, v) },
		"join":     func(separator, v any) (any, error) { return apply("join", separator, v) },
		"printf":   formatValues,
		"index":    indexValue,
		"_cell": func(name string) cell {
			return cell{r.value(r.addColumn(name)), name}
		},
		"_print": func(v any) string {
			value := valueOf(v)
			if value.Kind == table.KindText {
				return string(value.Text)
			}
			return string(value.AppendText(nil))
		},
		"_need": func(expression string, v any) (string, error) {
			value := valueOf(v)
			if value.IsEmpty() {
				return "", &CellError{Empty: true, Reason: "{{" + expression + "}} has no text for it"}
			}
			return string(value.AppendText(nil)), nil
		},
	}

	maps.Copy(functions, comparisons)

	return functions
}

// formatValues is printf, with an error for a value that the format does not fit: fmt describes
// it in the text, behind "%!".
func formatValues(format string, values ...any) (string, error) {
	plain := make([]any, len(values))
	for i, v := range values {
		if number, ok := v.(json.Number); ok {
			values[i], _ = toFloat(number)
		}
		plain[i] = withoutPercent(values[i])
	}

	// Without the percent signs of the format and of the values, only fmt writes one.
	faults := fmt.Sprintf(strings.ReplaceAll(format, "%%", ""), plain...)
	if strings.Contains(faults, "%!") {
		return "", &CellError{Reason: fmt.Sprintf("printf %q does not fit its values, and the cells of CSV are texts",
			format)}
	}

	return fmt.Sprintf(format, values...), nil
}

// withoutPercent returns a value with the percent signs of its texts taken out.
func withoutPercent(v any) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "%", "")
	case cell:
		v.Text = bytes.ReplaceAll(v.Text, []byte("%"), nil)
		return v
	case []any:
		plain := make([]any, len(v))
		for i, element := range v {
			plain[i] = withoutPercent(element)
		}
		return plain
	case map[string]any:
		plain := map[string]any{}
		for name, member := range v {
			plain[strings.ReplaceAll(name, "%", "")] = withoutPercent(member)
		}
		return plain
	case rowData:
		return withoutPercent(map[string]any(v))
	}

	return v
}

// indexValue is index for the values of rows. It refuses a text, of which text/template takes a
// byte: it may be the JSON of a list.
func indexValue(v any, keys ...any) (any, error) {
	for _, key := range keys {
		if row, ok := v.(rowData); ok {
			v = map[string]any(row)
		}

		i, isNumber := toInt(key)
		name, isName := key.(string)
		object, isObject := v.(map[string]any)
		list, isList := v.([]any)
		switch {
		case isObject && isName:
			v = object[name]
		case isList && isNumber && i >= 0 && i < int64(len(list)):
			v = list[i]
		case isList && isNumber:
			return nil, &CellError{Reason: fmt.Sprintf("the list for index has no element %d", i)}
		default:
			return nil, &CellError{Reason: "index needs a list and a number from 0, or an object and a name"}
		}
	}

	return v, nil
}

// rowData has the values of a row as templates take them, by the names of their columns.
type rowData map[string]any

// appendRow appends the current row as a JSON object, in the order of its columns.
func (r *Renderer) appendRow(dst []byte) []byte {
	dst = append(dst, '{')
	for i, c := range r.row.Columns {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst, _ = jsontext.AppendQuote(dst, c.Name) // invalid UTF-8 is replaced
		dst = append(dst, ':')
		dst = r.row.Values[i].AppendJSON(dst)
	}

	return append(dst, '}')
}

// valueOf returns a value of a template as one of a table.
func valueOf(v any) table.Value {
	switch v := v.(type) {
	case nil:
		return table.Value{}
	case cell:
		return v.Value
	case string:
		return table.Value{Kind: table.KindText, Text: []byte(v)}
	case json.Number:
		return table.Value{Kind: table.KindNumber, Text: []byte(v)}
	case int:
		return table.Value{Kind: table.KindInt, Bits: uint64(v)}
	case int64:
		return table.Value{Kind: table.KindInt, Bits: uint64(v)}
	}

	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if enc.Encode(v) != nil {
		return table.Value{}
	}

	text := bytes.TrimSuffix(out.Bytes(), []byte("\n"))
	kind := table.KindJSON
	switch jsontext.Value(text).Kind() {
	case 'n':
		return table.Value{}
	case 't', 'f', '0':
		kind = table.KindNumber
	}

	return table.Value{Kind: kind, Text: text}
}

// applyCalls returns the value of a part for the current row.
func (r *Renderer) applyCalls(p *part) (table.Value, error) {
	v := r.value(p.column)
	for _, c := range p.calls {
		var err error
		if v, err = r.applyCall(c, cell{v, r.names[p.column]}); err != nil {
			return v, err
		}
	}

	return v, nil
}

// applyCall returns the result of a function of this package.
func (r *Renderer) applyCall(c call, v cell) (table.Value, error) {
	switch c.name {
	case "json":
		if (v.Kind == table.KindText || v.Kind == table.KindTime) && !utf8.Valid(v.Text) {
			return table.Value{}, newEncodingError(v.column)
		}

		if v.Kind == table.KindText {
			quoted, _ := appendEscaped([]byte{'"'}, v.Text)
			return table.Value{Kind: table.KindText, Text: append(quoted, '"')}, nil
		}

		return table.Value{Kind: table.KindText, Text: v.AppendJSON(nil)}, nil
	case "truncate":
		if c.arg.Kind != table.KindInt || int64(c.arg.Bits) < 0 {
			return table.Value{}, &CellError{Column: v.column, Reason: "truncate needs a number of characters"}
		}
		return table.Value{Kind: table.KindText, Text: truncateText(v.Value, int64(c.arg.Bits))}, nil
	case "default":
		if v.IsEmpty() {
			return c.arg, nil
		}
		return v.Value, nil
	}

	return joinList(c.arg, v)
}

// truncateText returns the first characters of a value's text.
func truncateText(v table.Value, most int64) []byte {
	text := v.Text
	if v.Kind != table.KindText {
		text = v.AppendText(nil)
	}

	if int64(len(text)) <= most {
		return text
	}

	end := 0
	for ; most > 0 && end < len(text); most-- {
		if text[end] < utf8.RuneSelf {
			end++
			continue
		}
		_, size := utf8.DecodeRune(text[end:])
		end += size
	}

	return text[:end]
}

// joinList returns the texts of a list's elements, with a separator between them.
func joinList(separator table.Value, v cell) (table.Value, error) {
	if v.IsNull() {
		return table.Value{}, nil
	}

	var elements []json.RawMessage
	if v.Kind != table.KindJSON || json.Unmarshal(v.Text, &elements) != nil {
		return table.Value{}, &CellError{Column: v.column, Reason: "it is not a list, as join needs"}
	}

	between := separator.AppendText(nil)
	text := []byte{}
	for i, element := range elements {
		if i > 0 {
			text = append(text, between...)
		}

		switch element[0] {
		case 'n':
		case '"':
			var plain string
			if json.Unmarshal(element, &plain) == nil {
				text = append(text, plain...)
			}
		default:
			text = append(text, element...)
		}
	}

	return table.Value{Kind: table.KindText, Text: text}, nil
}
