// Package figures writes numbers, times, sizes and shares as people read them, to as many digits as say something.
package figures

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Count writes a whole number with commas.
func Count(n int64) string { return groupDigits(strconv.FormatInt(n, 10)) }

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

// Plural is a count of things.
func Plural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return Count(n) + " " + thing + "s"
}

// Word writes a whole number as a sentence has it: small ones as words.
func Word(n int64) string {
	small := []string{
		"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
	}
	if n >= 0 && n < int64(len(small)) {
		return small[n]
	}
	return Count(n)
}

// Fixed writes a number with a fixed count of decimals.
func Fixed(v float64, decimals int) string {
	return groupDigits(strconv.FormatFloat(v, 'f', decimals, 64))
}

// Amount writes a number to about three digits, and all digits before the point.
func Amount(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95:
		return Fixed(v, 0)
	case a >= 9.995:
		return Fixed(v, 1)
	case a >= 0.0995 || a == 0:
		return Fixed(v, 2)
	}

	return strconv.FormatFloat(v, 'g', 2, 64)
}

// JoulesPerKWh is the number of joules of a kilowatt-hour.
const JoulesPerKWh = 3.6e6

// Energy writes an energy that is given in joules.
func Energy(joules float64) string { return Amount(joules/JoulesPerKWh) + " kWh" }

// Fraction writes a fraction in percent, with enough digits to say 0% of nothing alone.
func Fraction(v float64) string {
	const parts = 1e9
	return Share(int64(math.Round(min(max(v, 0), 1)*parts)), parts)
}

// Integer writes a number without decimals.
func Integer(v float64) string { return Fixed(v, 0) }

// Short writes a time in seconds.
func Short(v float64) string {
	switch {
	case v >= 99.95 || v == 0:
		return Fixed(v, 0) + " s"
	case v >= 0.995:
		return Fixed(v, 1) + " s"
	}
	return strconv.FormatFloat(v, 'g', 2, 64) + " s"
}

// Seconds writes a time in seconds and, if it is long, in the units that people use.
func Seconds(v float64) string {
	if v < 120 {
		return Short(v)
	}
	return Short(v) + " (" + Duration(v) + ")"
}

// Duration writes a time in the unit that people would give it in.
func Duration(v float64) string {
	in := func(unit float64, name string) string {
		if v/unit < 9.95 {
			return Fixed(v/unit, 1) + " " + name
		}
		return Fixed(v/unit, 0) + " " + name
	}
	switch {
	case v < 60:
		return Short(v)
	case v < 90*60:
		return in(60, "min")
	case v < 72*3600:
		return in(3600, "h")
	}

	return in(24*3600, "days")
}

// Range is a range of times, whose unit stands once if it is that of both.
func Range(low, high float64) string {
	const minute, hour, day = 60.0, 3600.0, 24 * 3600.0
	from, to := Duration(low), Duration(high)
	switch {
	case low < minute && high < 2*minute: // across a minute, in seconds
		to = Short(high)
	case low >= hour/2 && low < 90*minute && high >= 90*minute && high < 3*day: // across Duration's limit, in hours
		from = Fixed(low/hour, 1) + " h"
	case low >= day && low < 3*day && high >= 3*day:
		from = Fixed(low/day, 1) + " days"
	}

	if number, unit, ok := strings.Cut(from, " "); ok && strings.HasSuffix(to, " "+unit) {
		from = number
	}

	return from + " to " + to
}

// Around is a time with the range it lies in, in one unit: that of the time, if it is minutes or more.
func Around(v, low, high float64) string {
	text := Duration(v)
	_, name, _ := strings.Cut(text, " ")
	unit := map[string]float64{"min": 60, "h": 3600, "days": 24 * 3600}[name]
	if unit == 0 || low/unit < 0.1 { // the unit would hide the lower end
		return text + " (" + Range(low, high) + ")"
	}

	in := func(v float64) string {
		if v/unit < 9.95 {
			return Fixed(v/unit, 1)
		}
		return Fixed(v/unit, 0)
	}

	return text + " (" + in(low) + " to " + in(high) + " " + name + ")"
}

// Milliseconds writes a time that is given in seconds.
func Milliseconds(v float64) string { return Amount(v * 1000) }

// Size writes a number of bytes.
func Size(v float64) string {
	for _, u := range []string{"B", "KiB", "MiB", "GiB"} {
		if math.Abs(v) < 1024 {
			if u == "B" {
				return Fixed(v, 0) + " B"
			}
			return Amount(v) + " " + u
		}

		v /= 1024
	}

	return Amount(v) + " TiB"
}

// Share writes part of a whole in percent, with enough digits to say neither 0%
// nor 100% unless it is none or all. The whole is not nothing.
func Share(part, whole int64) string {
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

// Change writes how much more something is than something else: 0.5 is +50%.
func Change(v float64) string {
	switch p := 100 * v; {
	case math.Abs(p) >= 1000:
		return fmt.Sprintf("x%s", Amount(v+1))
	case math.Abs(p) >= 9.95:
		return fmt.Sprintf("%+.0f%%", p)
	case math.Abs(p) < 0.05:
		return "0%"
	default:
		return fmt.Sprintf("%+.1f%%", p)
	}
}

// Times writes a factor.
func Times(v float64) string { return TrimZeros(Amount(v)) + " times" }

// TrimZeros takes zeros from the end of a fraction.
func TrimZeros(digits string) string {
	if strings.Contains(digits, ".") {
		digits = strings.TrimRight(strings.TrimRight(digits, "0"), ".")
	}
	return digits
}

// Plain writes a number of few digits as it is.
func Plain(v float64) string { return TrimZeros(Fixed(v, 3)) }

// Money writes an amount of money to the hundredth, or to two digits if it is less.
func Money(v float64) string {
	const digits = 2
	if a := math.Abs(v); v != 0 && a < 0.1 {
		return Fixed(v, digits-1-int(math.Floor(math.Log10(a))))
	}

	return Fixed(v, digits)
}
