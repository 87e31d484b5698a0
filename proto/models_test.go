package proto

import "testing"

func TestServes(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		list  []string
		model string
		want  bool
	}{
		{nil, "m", true},
		{[]string{}, "m", false},
		{[]string{"m"}, "m", true},
		{[]string{"m"}, "M", false},
		{[]string{"llama3:latest", "llama3"}, "llama3", true},
		{[]string{"*"}, "anything/at:all", true},
		{[]string{"*"}, "", true},
		{[]string{"openai/*"}, "openai/m", true},
		{[]string{"openai/*"}, "openai/a/b", true},
		{[]string{"openai/*"}, "openai/", true},
		{[]string{"openai/*"}, "openai", false},
		{[]string{"openai/*"}, "azure/m", false},
		{[]string{"*/m"}, "openai/m", true},
		{[]string{"*/m"}, "openai/m2", false},
		{[]string{"a*b*c"}, "abc", true},
		{[]string{"a*b*c"}, "axxbyyc", true},
		{[]string{"a*b*c"}, "acb", false},
		{[]string{"aa*aa"}, "aaa", false},
		{[]string{"a[b]*"}, "a[b]c", true},
		{[]string{"a[b]*"}, "abc", false},
		{[]string{"openai/*"}, "openai/*", true},
		{[]string{"a", "b/*"}, "b/c", true},
	} {
		if got := Serves(tt.list, tt.model); got != tt.want {
			t.Errorf("Serves(%q, %q) is %v", tt.list, tt.model, got)
		}
	}
}
