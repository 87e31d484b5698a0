package gpu

import (
	"strings"
	"testing"
)

func TestSelect(t *testing.T) {
	t.Parallel()

	var cards []Card
	for i, id := range []string{"GPU-aa", "GPU-ab", "GPU-c"} {
		cards = append(cards, Card{Reading: Reading{Index: i, UUID: id}})
	}

	for devices, want := range map[string]string{
		"":           "GPU-aa GPU-ab GPU-c",
		"1":          "GPU-ab",
		"2,0":        "GPU-c GPU-aa",
		"GPU-c, 1":   "GPU-c GPU-ab",
		"GPU-a":      "GPU-aa", // as CUDA, the first
		"3":          "GPU-aa GPU-ab GPU-c",
		"0,MIG-x":    "GPU-aa GPU-ab GPU-c",
		"NoDevFiles": "GPU-aa GPU-ab GPU-c",
	} {
		var got []string
		for _, c := range Select(cards, devices) {
			got = append(got, c.UUID)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", devices, got, want)
		}
	}
}
