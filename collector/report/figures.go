package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// formatCount writes a whole number with commas.
func formatCount(n int64) string { return groupDigits(strconv.FormatInt(n, 10)) }

// groupDigits groups the digits before the decimal point by three.
func groupDigits(digits string) string {
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

// formatPlural is a count of things.
func formatPlural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return formatCount(n) + " " + thing + "s"
}

// formatFixed writes a number with a fixed count of decimals.
func formatFixed(v float64, decimals int) string {
	return groupDigits(strconv.FormatFloat(v, 'f', decimals, 64))
}

// formatAmount writes a number to about three digits, and all digits before the point.
func formatAmount(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95:
		return formatFixed(v, 0)
	case a >= 9.995:
		return formatFixed(v, 1)
	case a >= 0.0995 || a == 0:
		return formatFixed(v, 2)
	}

	return strconv.FormatFloat(v, 'g', 2, 64)
}

// formatEnergy writes an energy that is given in joules.
func formatEnergy(joules float64) string { return formatAmount(joules/joulesPerKWh) + " kWh" }

// formatFraction writes a fraction in percent, with enough digits to say 0% of nothing alone.
func formatFraction(v float64) string {
	const parts = 1e9
	return formatShare(int64(math.Round(min(max(v, 0), 1)*parts)), parts)
}

func formatInteger(v float64) string { return formatFixed(v, 0) }

// formatShort writes a time in seconds.
func formatShort(v float64) string {
	switch {
	case v >= 99.95 || v == 0:
		return formatFixed(v, 0) + " s"
	case v >= 0.995:
		return formatFixed(v, 1) + " s"
	}
	return strconv.FormatFloat(v, 'g', 2, 64) + " s"
}

// formatSeconds writes a time in seconds and, if it is long, in the units that people use.
func formatSeconds(v float64) string {
	if v < 120 {
		return formatShort(v)
	}
	return formatShort(v) + " (" + formatDuration(v) + ")"
}

// formatDuration writes a time in the unit that people would give it in.
func formatDuration(v float64) string {
	in := func(unit float64, name string) string {
		if v/unit < 9.95 {
			return formatFixed(v/unit, 1) + " " + name
		}
		return formatFixed(v/unit, 0) + " " + name
	}
	switch {
	case v < 60:
		return formatShort(v)
	case v < 90*60:
		return in(60, "min")
	case v < 72*3600:
		return in(3600, "h")
	}

	return in(24*3600, "days")
}

// formatMilliseconds writes a time that is given in seconds.
func formatMilliseconds(v float64) string { return formatAmount(v * 1000) }

// formatSize writes a number of bytes.
func formatSize(v float64) string {
	for _, u := range []string{"B", "KiB", "MiB", "GiB"} {
		if math.Abs(v) < 1024 {
			if u == "B" {
				return formatFixed(v, 0) + " B"
			}
			return formatAmount(v) + " " + u
		}

		v /= 1024
	}

	return formatAmount(v) + " TiB"
}

// formatShare writes part of a whole in percent, with enough digits to say neither 0%
// nor 100% unless it is none or all. The whole is not nothing.
func formatShare(part, whole int64) string {
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

// formatChange writes how much more something is than something else: 0.5 is +50%.
func formatChange(v float64) string {
	switch p := 100 * v; {
	case math.Abs(p) >= 1000:
		return fmt.Sprintf("x%s", formatAmount(v+1))
	case math.Abs(p) >= 9.95:
		return fmt.Sprintf("%+.0f%%", p)
	case math.Abs(p) < 0.05:
		return "0%"
	default:
		return fmt.Sprintf("%+.1f%%", p)
	}
}

// formatTimes writes a factor.
func formatTimes(v float64) string { return trimZeros(formatAmount(v)) + " times" }

// trimZeros takes zeros from the end of a fraction.
func trimZeros(digits string) string {
	if strings.Contains(digits, ".") {
		digits = strings.TrimRight(strings.TrimRight(digits, "0"), ".")
	}
	return digits
}

// formatPlain writes a number of few digits as it is.
func formatPlain(v float64) string { return trimZeros(formatFixed(v, 3)) }

// formatMoney writes an amount of money to the hundredth, or to two digits if it is less.
func formatMoney(v float64) string {
	const digits = 2
	if a := math.Abs(v); v != 0 && a < 0.1 {
		return formatFixed(v, digits-1-int(math.Floor(math.Log10(a))))
	}

	return formatFixed(v, digits)
}
