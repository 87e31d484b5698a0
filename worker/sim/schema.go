package sim

import (
	"encoding/json"
	"math"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// maxSchemaDepth is the depth from which on a schema that refers to itself has no more values.
const maxSchemaDepth = 16

// schemaNode is the part of a JSON Schema that decides an answer.
type schemaNode struct {
	Ref              string            `json:"$ref"`
	Type             any               `json:"type"`
	Const            json.RawMessage   `json:"const"`
	Enum             []json.RawMessage `json:"enum"`
	AnyOf            []json.RawMessage `json:"anyOf"`
	OneOf            []json.RawMessage `json:"oneOf"`
	AllOf            []json.RawMessage `json:"allOf"`
	Properties       json.RawMessage   `json:"properties"`
	Items            json.RawMessage   `json:"items"`
	MinItems         int               `json:"minItems"`
	MaxItems         *int              `json:"maxItems"`
	MinLength        int               `json:"minLength"`
	MaxLength        *int              `json:"maxLength"`
	Minimum          *float64          `json:"minimum"`
	Maximum          *float64          `json:"maximum"`
	ExclusiveMinimum *float64          `json:"exclusiveMinimum"`
	ExclusiveMaximum *float64          `json:"exclusiveMaximum"`
}

// readSchema returns the schema of a response_format; nil if it has none.
func readSchema(format []byte) json.RawMessage {
	var f struct {
		Type       string `json:"type"`
		JSONSchema struct {
			Schema json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	}
	if json.Unmarshal(format, &f) != nil || f.Type != "json_schema" {
		return nil
	}

	return f.JSONSchema.Schema
}

// schemaAnswer makes the JSON of an answer that matches a simple schema: one of types, properties,
// items, constants and bounds. A property comes in the order of the schema.
type schemaAnswer struct {
	root   json.RawMessage
	random uint64
	text   []byte
}

// draw returns a number from 0 to n-1.
func (a *schemaAnswer) draw(n int) int {
	a.random = nextRandom(a.random)
	return int(a.random >> 33 % uint64(n))
}

// appendValue appends a value that matches a schema.
func (a *schemaAnswer) appendValue(schema json.RawMessage, depth int) {
	var node schemaNode
	if json.Unmarshal(schema, &node) != nil || depth > maxSchemaDepth {
		a.text = append(a.text, "null"...)
		return
	}

	switch alternatives := slices.Concat(node.AnyOf, node.OneOf, node.AllOf); {
	case node.Const != nil:
		a.text = append(a.text, node.Const...)
	case len(node.Enum) > 0:
		a.text = append(a.text, node.Enum[a.draw(len(node.Enum))]...)
	case node.Ref != "":
		a.appendValue(a.resolveRef(node.Ref), depth+1)
	case len(alternatives) > 0:
		a.appendValue(alternatives[0], depth+1)
	default:
		a.appendTyped(&node, depth)
	}
}

// resolveRef returns the part of the schema that a reference such as #/$defs/item names.
func (a *schemaAnswer) resolveRef(ref string) json.RawMessage {
	at := a.root
	for _, name := range strings.Split(strings.TrimPrefix(ref, "#"), "/") {
		if name == "" {
			continue
		}

		var members map[string]json.RawMessage
		if json.Unmarshal(at, &members) != nil {
			return nil
		}
		at = members[name]
	}

	return at
}

// typeOf returns the type of the values of a node: the first one but null.
func (node *schemaNode) typeOf() string {
	list, isList := node.Type.([]any)
	for _, one := range list {
		if name, ok := one.(string); ok && name != "null" {
			return name
		}
	}

	name, isName := node.Type.(string)
	switch {
	case isName:
		return name
	case isList:
		return "null"
	case node.Properties != nil:
		return "object"
	case node.Items != nil:
		return "array"
	}

	return "string"
}

// appendTyped appends a value of the type of a node.
func (a *schemaAnswer) appendTyped(node *schemaNode, depth int) {
	switch node.typeOf() {
	case "object":
		a.appendObject(node, depth)
	case "array":
		n := max(node.MinItems, 1+a.draw(2))
		if node.MaxItems != nil {
			n = min(n, *node.MaxItems)
		}

		if node.Items == nil || depth > maxSchemaDepth/2 {
			n = node.MinItems
		}

		a.text = append(a.text, '[')
		for i := range n {
			if i > 0 {
				a.text = append(a.text, ',')
			}
			a.appendValue(node.Items, depth+1)
		}
		a.text = append(a.text, ']')
	case "integer", "number":
		a.appendNumber(node)
	case "boolean":
		a.text = append(a.text, [...]string{"false", "true"}[a.draw(2)]...)
	case "null":
		a.text = append(a.text, "null"...)
	default:
		a.appendString(node)
	}
}

// appendObject appends an object with all properties of a node.
func (a *schemaAnswer) appendObject(node *schemaNode, depth int) {
	a.text = append(a.text, '{')

	var s jsonscan.Scanner
	s.Reset(node.Properties)
	before := len(a.text)

	for s.Enter(); s.Next(); {
		if len(a.text) > before {
			a.text = append(a.text, ',')
		}

		a.text = append(append(a.text, jsonscan.Quote(string(s.Name()))...), ':')
		a.appendValue(s.Value(), depth+1)
	}

	a.text = append(a.text, '}')
}

// appendNumber appends a number within the bounds of a node, or from 0 to 100.
func (a *schemaAnswer) appendNumber(node *schemaNode) {
	isInteger := node.typeOf() == "integer"
	step := 0.01
	if isInteger {
		step = 1
	}

	least, most := 0.0, 100.0
	switch {
	case node.Minimum != nil:
		least = *node.Minimum
	case node.ExclusiveMinimum != nil:
		least = *node.ExclusiveMinimum + step
	}

	if node.Minimum != nil || node.ExclusiveMinimum != nil {
		most = least + 100
	}

	switch {
	case node.Maximum != nil:
		most = *node.Maximum
	case node.ExclusiveMaximum != nil:
		most = *node.ExclusiveMaximum - step
	}

	least = min(least, most)
	value := least + (most-least)*float64(a.draw(101))/100

	if isInteger {
		least, most = math.Ceil(least), math.Floor(most)
		value = least + float64(a.draw(int(max(0, min(most-least, 1e6)))+1))
	}

	number, _ := json.Marshal(value)
	a.text = append(a.text, number...)
}

// appendString appends a text of a few words, of a length that a node allows.
func (a *schemaAnswer) appendString(node *schemaNode) {
	text := words[a.draw(len(words))] + " " + words[a.draw(len(words))]
	for len(text) < node.MinLength {
		text += " " + words[a.draw(len(words))]
	}

	if node.MaxLength != nil {
		text = text[:min(len(text), max(0, *node.MaxLength))]
	}

	a.text = append(a.text, jsonscan.Quote(text)...)
}
