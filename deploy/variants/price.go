package variants

import (
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/sweep"
)

// Price is the price of an hour of the machine of variants.
type Price struct {
	// Variant is the name of a variant, or of a model, a server or a program, which stands for all variants that have
	// it. Empty: all.
	Variant string
	// PerHour is the price, in any currency.
	PerHour float64
}

// ParsePrices reads prices of an hour, as PRICE or VARIANT=PRICE each.
func ParsePrices(texts []string) (prices []Price, err error) {
	for _, text := range texts {
		p := Price{}
		number := text
		if at := strings.LastIndex(text, "="); at >= 0 {
			p.Variant, number = text[:at], text[at+1:]
			if p.Variant == "" {
				return nil, exit.Usage("for example --price-hour 2.50", "--price-hour %s names no variant", report.ShellWords(text))
			}
		}

		if p.PerHour, err = strconv.ParseFloat(number, 64); err != nil || !(p.PerHour >= 0 && p.PerHour <= 1e9) {
			return nil, exit.Usage("for example --price-hour 2.50, or --price-hour VARIANT=2.50",
				"--price-hour %s: %q is not a price", report.ShellWords(text), number)
		}

		if slices.ContainsFunc(prices, func(other Price) bool { return other.Variant == p.Variant }) {
			return nil, exit.Usage("leave out one of them", "--price-hour %s: this price is given twice", report.ShellWords(text))
		}
		prices = append(prices, p)
	}

	return prices, nil
}

// setPrices returns the variants with their prices: one for the variant itself comes before one for what it has in
// common with others, and that before one for all.
func setPrices(list []candidate, prices []Price) (specs sweep.List, err error) {
	used := map[string]bool{"": true}
	for _, c := range list {
		c.names = slices.DeleteFunc(c.names, func(name string) bool { return name == "" })
		for _, name := range slices.Concat([]string{c.spec.Name}, c.names, []string{""}) {
			i := slices.IndexFunc(prices, func(p Price) bool { return p.Variant == name })
			if i < 0 {
				continue
			}

			used[name] = true
			if c.spec.PricePerHour == nil {
				c.spec.PricePerHour = new(prices[i].PerHour)
			}
		}
		specs = append(specs, c.spec)
	}

	for _, p := range prices {
		if !used[p.Variant] {
			return nil, exit.Usage("the variants are "+listNames(list), "--price-hour: there is no variant %s",
				report.ShellWords(p.Variant))
		}
	}

	return specs, nil
}
