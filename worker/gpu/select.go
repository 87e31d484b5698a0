package gpu

import (
	"slices"
	"strconv"
	"strings"
)

// Select returns the cards that a program sees which has a text in CUDA_VISIBLE_DEVICES: numbers and ids, or
// beginnings of ids, with commas between them. It returns all cards if the text is empty or names something
// that is not among them, such as a part of a card.
func Select(cards []Card, devices string) (seen []Card) {
	if devices == "" {
		return cards
	}

	for device := range strings.SplitSeq(devices, ",") {
		device = strings.TrimSpace(device)
		i := slices.IndexFunc(cards, func(c Card) bool {
			return strconv.Itoa(c.Index) == device ||
				strings.HasPrefix(device, "GPU-") && strings.HasPrefix(c.UUID, device)
		})
		if i < 0 {
			return cards
		}
		seen = append(seen, cards[i])
	}

	return seen
}
