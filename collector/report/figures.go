package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// count writes a whole number with commas.
func count(n int64) string { return commas(strconv.FormatInt(n, 10)) }

// commas groups the digits before the decimal point by three.
func commas(digits string) string {
	sign, rest := "", digits
	if strings.HasPrefix(rest, "-") {
		sign, rest = "-", rest[1:]
	}

	whole, fraction, found := strings.Cut(rest, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}

	if found {
		return sign + whole + "." + fraction
	}

	return sign + whole
}

// plural is a count of things.
func plural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return count(n) + " " + thing + "s"
}

// fixedTo writes a number with so many decimals.
func fixedTo(v float64, decimals int) string {
	return commas(strconv.FormatFloat(v, 'f', decimals, 64))
}

// amount writes a number to about three digits, and all digits before the point.
func amount(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95:
		return fixedTo(v, 0)
	case a >= 9.995:
		return fixedTo(v, 1)
	case a >= 0.0995 || a == 0:
		return fixedTo(v, 2)
	}

	return strconv.FormatFloat(v, 'g', 2, 64)
}

func tokensPerSecond(v float64) string   { return amount(v) + " tok/s" }
func requestsPerSecond(v float64) string { return amount(v) + " req/s" }
func integer(v float64) string           { return fixedTo(v, 0) }

// shortly writes a time in seconds.
func shortly(v float64) string {
	switch {
	case v >= 99.95 || v == 0:
		return fixedTo(v, 0) + " s"
	case v >= 0.995:
		return fixedTo(v, 1) + " s"
	}
	return strconv.FormatFloat(v, 'g', 2, 64) + " s"
}

// seconds writes a time in seconds and, if it is long, in what people count in.
func seconds(v float64) string {
	if v < 120 {
		return shortly(v)
	}
	return shortly(v) + " (" + duration(v) + ")"
}

// duration writes a time in the unit that people would give it in.
func duration(v float64) string {
	in := func(unit float64, name string) string {
		if v/unit < 9.95 {
			return fixedTo(v/unit, 1) + " " + name
		}
		return fixedTo(v/unit, 0) + " " + name
	}
	switch {
	case v < 60:
		return shortly(v)
	case v < 90*60:
		return in(60, "min")
	case v < 72*3600:
		return in(3600, "h")
	}

	return in(24*3600, "days")
}

// milliseconds writes a time that is given in seconds.
func milliseconds(v float64) string { return amount(v * 1000) }

// size writes a number of bytes.
func size(v float64) string {
	for _, u := range []string{"B", "KiB", "MiB", "GiB"} {
		if math.Abs(v) < 1024 {
			if u == "B" {
				return fixedTo(v, 0) + " B"
			}
			return amount(v) + " " + u
		}

		v /= 1024
	}

	return amount(v) + " TiB"
}

// share writes part of a whole in percent, with so many digits that it says neither 0%
// nor 100% unless it is none or all. The whole is not nothing.
func share(part, whole int64) string {
	p := 100 * float64(part) / float64(whole)
	for decimals := 0; ; decimals++ {
		text := strconv.FormatFloat(p, 'f', decimals, 64)
		rounded, _ := strconv.ParseFloat(text, 64)
		coarse := p < 9.95 || p > 90.05
		if part == 0 || part == whole || decimals == 9 ||
			rounded > 0 && rounded < 100 && (decimals > 0 || !coarse || rounded == p) {
			return text + "%"
		}
	}
}

// change writes how much more something is than something else: 0.5 is +50%.
func change(v float64) string {
	switch p := 100 * v; {
	case math.Abs(p) >= 1000:
		return fmt.Sprintf("x%s", amount(v+1))
	case math.Abs(p) >= 9.95:
		return fmt.Sprintf("%+.0f%%", p)
	case math.Abs(p) < 0.05:
		return "0%"
	default:
		return fmt.Sprintf("%+.1f%%", p)
	}
}

// times writes a factor.
func times(v float64) string { return withoutZeros(amount(v)) + " times" }

// withoutZeros takes zeros from the end of a fraction.
func withoutZeros(digits string) string {
	if strings.Contains(digits, ".") {
		digits = strings.TrimRight(strings.TrimRight(digits, "0"), ".")
	}
	return digits
}

// plain writes a number of few digits as it is.
func plain(v float64) string { return withoutZeros(fixedTo(v, 3)) }

// money writes an amount of money to the hundredth, or to two digits if it is less.
func money(v float64) string {
	if v != 0 && math.Abs(v) < 0.1 {
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return fixedTo(v, 2)
}
