package batchapi

import (
	"reflect"
	"strings"
	"unicode"

	"github.com/danielgtaylor/huma/v2"
)

// schemaOf returns the schema of a type.
func schemaOf[T any](s *server) *huma.Schema {
	return s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
}

// nameSchema names the schema of a type: FileObject for fileObject, FileObjectList for a list of them.
func nameSchema(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}

	name := t.Name()
	if name == "" {
		name = hint
	}

	if outer, element, generic := strings.Cut(name, "["); generic { // listObject[path/of.fileObject]
		element = strings.TrimSuffix(element[strings.LastIndex(element, ".")+1:], "]")
		name = strings.TrimSuffix(element, "Object") + "_" + outer
	}

	var words strings.Builder
	upper := true
	for _, r := range name {
		if r == '_' || r == '-' {
			upper = true
			continue
		}
		if upper {
			r = unicode.ToUpper(r)
		}
		upper = false
		words.WriteRune(r)
	}

	return words.String()
}

// TransformSchema implements huma.SchemaTransformer: errors may be null, and
// status has one of these values.
func (batchObject) TransformSchema(_ huma.Registry, schema *huma.Schema) *huma.Schema {
	schema.Properties["status"].Enum = []any{
		"validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled",
	}
	schema.Properties["errors"] = &huma.Schema{AnyOf: []*huma.Schema{schema.Properties["errors"], {Type: "null"}}}
	return schema
}
