package prompt

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// setTemplate is a field of the settings whose value has templates.
type setTemplate struct {
	name string
	// member is `"NAME":`.
	member []byte
	// parts make the value.
	parts []setPart
	// isJSON reports that the value is JSON whose strings have the templates. Else its only
	// part is a template whose text must be JSON.
	isJSON bool
}

// setPart is JSON as it stands in the value or, if template is not nil, a string.
type setPart struct {
	text     []byte
	template *rowTemplate
}

// compileSet compiles the value of a field: JSON with templates in its strings, or a template
// that makes JSON.
func (r *Renderer) compileSet(name, value string) (setTemplate, error) {
	field := setTemplate{
		name:   name,
		member: append(jsonscan.Quote(name), ':'),
		isJSON: jsontext.Value(value).IsValid(),
	}

	if !field.isJSON {
		t, err := r.compileTemplate(setFlag+name, value)
		field.parts = []setPart{{template: t}}
		return field, err
	}

	for rest := value; rest != ""; {
		start := strings.IndexByte(rest, '"')
		if start < 0 {
			field.parts = append(field.parts, setPart{text: []byte(rest)})
			break
		}

		end := start + 1
		for rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}

		end++

		text := string(jsonscan.Text([]byte(rest[start:end])))
		if !isTemplate(text) {
			field.parts = append(field.parts, setPart{text: []byte(rest[:end])})
			rest = rest[end:]
			continue
		}

		t, err := r.compileTemplate(setFlag+name, text)
		if err != nil {
			return field, err
		}

		field.parts = append(field.parts, setPart{text: []byte(rest[:start])}, setPart{template: t})
		rest = rest[end:]
	}

	return field, nil
}

// appendSet appends a field as a member.
func (r *Renderer) appendSet(dst []byte, field *setTemplate) ([]byte, error) {
	dst = append(dst, field.member...)
	if !field.isJSON {
		return r.appendJSON(dst, field)
	}

	for _, p := range field.parts {
		if p.template == nil {
			dst = append(dst, p.text...)
			continue
		}

		var err error
		if dst, err = r.appendQuoted(dst, p.template); err != nil {
			return dst, err
		}
	}

	return dst, nil
}

// appendJSON appends the text of a field's template, which must be JSON.
func (r *Renderer) appendJSON(dst []byte, field *setTemplate) ([]byte, error) {
	t := field.parts[0].template
	text, err := r.appendText(r.text[:0], t)
	r.text = text
	if err != nil {
		return dst, err
	}

	value := jsontext.Value(text)
	if !value.IsValid() || value.Compact() != nil {
		e := &CellError{Reason: "it is not JSON, as the value of " + field.name + " must be"}
		if len(t.columns) == 1 {
			e.Column = r.names[t.columns[0]]
		} else {
			e.Reason = "the value of " + t.flag + " is not JSON"
		}

		return dst, e
	}

	return append(dst, value...), nil
}
