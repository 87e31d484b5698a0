package main

import (
	"fmt"
	"testing"

	"github.com/promptmill/promptmill/collector"
)

// An input may name more models than a run can have: each stays the one that it is.
func TestVerifyManyModels(t *testing.T) {
	t.Parallel()
	v, err := newVerifier(nil, collector.Output("out"), false)
	must(t, err)
	for range 2 {
		for i := range 1000 {
			name := fmt.Sprintf("m%d", i)
			if got := v.names[v.modelIndex(name)]; got != name {
				t.Fatalf("model %s counts as %s", name, got)
			}
		}
	}
}
