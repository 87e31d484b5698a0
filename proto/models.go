package proto

import "strings"

// Serves reports whether a list of models, as model servers and workers report it, has the model
// that a request names. An asterisk in a listed name stands for any text, as in gateways:
// "openai/*" serves "openai/gpt-oss-120b". With a list that is nil, any model may be tried.
func Serves(list []string, model string) bool {
	if list == nil {
		return true
	}

	for _, listed := range list {
		if listed == model || matchesPattern(listed, model) {
			return true
		}
	}

	return false
}

// IsPattern reports whether a listed name is a pattern for several models.
func IsPattern(listed string) bool { return strings.Contains(listed, "*") }

// matchesPattern reports whether a listed name with asterisks matches a model's name.
func matchesPattern(listed, model string) bool {
	parts := strings.Split(listed, "*")
	if len(parts) == 1 || !strings.HasPrefix(model, parts[0]) {
		return false
	}

	rest, last := model[len(parts[0]):], len(parts)-1
	for _, part := range parts[1:last] {
		_, after, ok := strings.Cut(rest, part)
		if !ok {
			return false
		}
		rest = after
	}

	return strings.HasSuffix(rest, parts[last])
}
