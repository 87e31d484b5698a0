package sample

import "github.com/promptmill/promptmill/producer"

// spread orders items, which are sorted by a size, so that each beginning of them is balanced: of the first 2ⁿ, one is
// of each of 2ⁿ equal parts of the sorted items, and so are the next ones. It is the van der Corput sequence with the
// scrambling of Owen (1995), which makes each of these places equally likely for each item: no period of the order
// can meet one of the server. For a beginning of n requests, the mean of the size is off by a few percent of what it
// is in a random order.
func spread[T any](sorted []T) {
	coin := coin(0)
	spreadParts(sorted, make([]T, len(sorted)), &coin)
}

// spreadParts is spread, with memory for as many items.
func spreadParts[T any](items, scratch []T, coin *coin) {
	if len(items) < 2 {
		return
	}

	half := len(items) / 2
	if len(items)%2 == 1 && coin.flip() {
		half++
	}

	spreadParts(items[:half], scratch[:half], coin)
	spreadParts(items[half:], scratch[half:], coin)
	copy(scratch, items)

	low, high := scratch[:half], scratch[half:len(items)]
	for i := 0; i < len(items); i += 2 {
		pair := i / 2
		switch {
		case pair >= len(low):
			items[i] = high[pair]
		case pair >= len(high):
			items[i] = low[pair]
		case coin.flip():
			items[i], items[i+1] = low[pair], high[pair]
		default:
			items[i], items[i+1] = high[pair], low[pair]
		}
	}
}

// coin is a source of random bits, the same ones each time and in each version of Go.
type coin int

// flip returns the next bit.
func (c *coin) flip() bool {
	*c++
	return producer.HashRow(int(*c))>>63 == 1
}
