package quality

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// tolerance is the relative difference up to which two numbers are the same.
const tolerance = 1e-9

// sameNumber reports whether two numbers are the same.
func sameNumber(a, b float64) bool {
	return a == b || math.Abs(a-b) <= tolerance*max(math.Abs(a), math.Abs(b))
}

// findLastNumber returns the last number in a text. It is not ok if there is none, or if it is beyond the range of a
// float64.
//
// A number never spans lines. Digits behind a letter of the Latin script, as in H2O, are none. A point is a decimal
// one. A comma separates thousands before groups of three digits (1,234) and is a decimal one otherwise (0,5). Where
// there are both, the last is the decimal one: 1.234,5 is 1234.5. What cannot be read that way is a list or a date,
// and its last part counts: 1,2,3 is 3, and 2024-11-29 is 29. 3/4 is a fraction, and 45% is 45.
func findLastNumber(text string) (value float64, ok bool) {
	for len(text) > 0 {
		start := strings.LastIndexByte(text, '\n') + 1

		if n, found := scanLine(normalizeLine(text[start:])); found {
			return n.value, !math.IsInf(n.value, 0)
		}

		text = text[:max(0, start-1)]
	}

	return 0, false
}

// parseExpectedNumber returns the number that a text consists of: with its sign, a currency and a percent sign at
// most. As in the data set GSM8K, it can also stand alone behind #### in the last line.
func parseExpectedNumber(text string) (value float64, ok bool) {
	text = strings.TrimSpace(text)
	last := text[strings.LastIndexByte(text, '\n')+1:]
	if number, marked := strings.CutPrefix(last, "####"); marked {
		text = number
	}

	line := normalizeLine(text)
	n, found := scanLine(line)
	if !found || n.partial || math.IsInf(n.value, 0) {
		return 0, false
	}

	for i, r := range line {
		if (i < n.start || i >= n.end) && !unicode.IsSpace(r) && !unicode.Is(unicode.Sc, r) && r != '%' {
			return 0, false
		}
	}

	return n.value, true
}

// number is a number in a line.
type number struct {
	value float64 // infinite: beyond the range
	// start and end are its place, its sign included.
	start, end int
	// partial reports that it is the last part of a list or a date.
	partial bool
}

// normalizeLine returns the runes of a line, with one form of each digit, sign and separator.
func normalizeLine(line string) []rune {
	runes := []rune(line)
	for i, r := range runes {
		switch {
		case r < 0x80:
		case r == '−', r == '–', r == '－': // minus, en dash, fullwidth
			runes[i] = '-'
		case r == '’', r == '\u00a0', r == '\u202f', r == '\u2009': // no-break, narrow no-break and thin space
			runes[i] = '\''
		case r == '٫':
			runes[i] = '.'
		case r == '٬':
			runes[i] = ','
		case r == '⁄': // fraction slash
			runes[i] = '/'
		case unicode.Is(unicode.Nd, r):
			runes[i] = digitOf(r)
		}
	}

	return runes
}

// digitOf returns the ASCII digit of a decimal digit of another script. Unicode has them in tens, from zero to nine.
func digitOf(r rune) rune {
	for zero := r; ; zero-- {
		if !unicode.Is(unicode.Nd, zero-1) {
			return '0' + (r-zero)%10
		}
	}
}

// isDigit reports whether there is a digit at i.
func isDigit(line []rune, i int) bool {
	return i >= 0 && i < len(line) && line[i] >= '0' && line[i] <= '9'
}

// isLetter reports whether there is a letter of the Latin script at i. Other scripts are written without spaces.
func isLetter(line []rune, i int) bool {
	return i >= 0 && i < len(line) && unicode.Is(unicode.Latin, line[i])
}

// isAny reports whether there is one of some runes at i.
func isAny(line []rune, i int, of string) bool {
	return i >= 0 && i < len(line) && strings.ContainsRune(of, line[i])
}

// separators may stand between the digits of a number.
const separators = ".,'_"

// scanLine returns the last number in a line.
func scanLine(line []rune) (last number, found bool) {
	for i := 0; i < len(line); {
		isPoint := line[i] == '.' && isDigit(line, i+1) && !isDigit(line, i-1) && !isLetter(line, i-1) &&
			!isAny(line, i-1, ".)]}")
		if !isPoint && !isDigit(line, i) {
			i++
			continue
		}

		// Digits behind a letter, as in H2O and x_1, are a part of a name.
		isName := isLetter(line, i-1) || isAny(line, i-1, "_") && isLetter(line, i-2)

		n := readNumber(line, i)
		if !isName {
			last, found = n, true
		}
		i = n.end
	}

	return last, found
}

// readNumber reads the number whose first digit or point is at i.
func readNumber(line []rune, i int) number {
	end := i
	for isDigit(line, end) || isAny(line, end, separators) && isDigit(line, end+1) {
		end++
	}

	digits, partial := readSeparated(string(line[i:end]))
	n := number{start: i, end: end, partial: partial}

	exponent, end := readExponent(line, n.end)
	n.value, _ = strconv.ParseFloat(digits+"e"+exponent, 64) // its only error is the range
	n.end = end

	if exponent == "0" {
		n.readFraction(line)
	}

	if !partial {
		n.readSign(line)
	}

	return n
}

// readSign reads the sign before a number.
func (n *number) readSign(line []rune) {
	at := n.start - 1
	if at >= 0 && unicode.Is(unicode.Sc, line[at]) { // -$5
		at--
	}

	if isAny(line, at, "-+") && !isDigit(line, at-1) && !isLetter(line, at-1) && !isAny(line, at-1, "-+)]}%") {
		n.start = at
		if line[at] == '-' {
			n.value = 0 - n.value
		}
	}
}

// readFraction reads the denominator of a fraction of two integers. What has two slashes is a date.
func (n *number) readFraction(line []rune) {
	end := n.end + 1
	for isDigit(line, end) {
		end++
	}

	if n.partial || !isAny(line, n.end, "/") || isAny(line, n.start-1, "/") || isAny(line, end, "/") ||
		isAny(line, end, separators) && isDigit(line, end+1) {
		return
	}

	for i := n.start; i < n.end; i++ {
		if !isDigit(line, i) {
			return
		}
	}

	below, err := strconv.ParseFloat(string(line[n.end+1:end]), 64)
	if err == nil && below > 0 && !math.IsInf(n.value, 0) {
		n.value, n.end = n.value/below, end
	}
}

// readSeparated returns digits with separators as a decimal number. partial reports that only the last part of them
// is one.
func readSeparated(text string) (decimal string, partial bool) {
	parts := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(separators, r) })

	if text[0] == '.' {
		parts = slices.Insert(parts, 0, "0")
		text = "0" + text
	}

	var marks []byte
	for i := range len(text) {
		if strings.IndexByte(separators, text[i]) >= 0 {
			marks = append(marks, text[i])
		}
	}

	if decimal, ok := joinParts(parts, marks); ok {
		return decimal, false
	}

	// Of a list with commas the last element counts, and of anything else the last part.
	if at := strings.LastIndexByte(text, ','); at >= 0 {
		decimal, _ = readSeparated(text[at+1:])
		return decimal, true
	}

	return parts[len(parts)-1], true
}

// joinParts returns groups of digits and the separators between them as a decimal number. It is not ok if they are
// none.
func joinParts(parts []string, marks []byte) (decimal string, ok bool) {
	n := len(marks)
	if n == 0 {
		return parts[0], true
	}

	same := 0 // marks that are like the first one
	for same < n && marks[same] == marks[0] {
		same++
	}

	last := marks[n-1]
	switch {
	case n == 1 && last == '.':
		return parts[0] + "." + parts[1], true
	case same == n && areGroups(parts, last):
		return strings.Join(parts, ""), true
	case n == 1 && last == ',':
		return parts[0] + "." + parts[1], true
	case same == n-1 && (last == '.' || last == ',') && areGroups(parts[:n], marks[0]):
		return strings.Join(parts[:n], "") + "." + parts[n], true
	}

	return "", false
}

// areGroups reports whether digits are grouped by thousands or, with commas, as in India: 12,34,567.
func areGroups(parts []string, mark byte) bool {
	last := len(parts) - 1
	if parts[0][0] == '0' || len(parts[0]) > 3 || len(parts[last]) != 3 {
		return false
	}

	middle := 3
	if mark == ',' && last > 1 && len(parts[0]) < 3 && len(parts[1]) == 2 {
		middle = 2
	}

	for _, part := range parts[1:last] {
		if len(part) != middle {
			return false
		}
	}

	return true
}

// superscripts are the superscript signs and digits, and plainScripts what they stand for.
var (
	superscripts = []rune("⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹")
	plainScripts = []rune("-+0123456789")
)

// readExponent reads the exponent at i, such as e-5, ×10^5 and × 10⁵, and returns its end. It is 0 if there is none.
func readExponent(line []rune, i int) (exponent string, end int) {
	if isAny(line, i, "eE") {
		if exponent, end = readInteger(line, i+1); exponent != "" && !isLetter(line, end) {
			return exponent, end
		}
		return "0", i
	}

	at := skipSpaces(line, i)
	times := at
	for _, sign := range []string{"×", "x", "*", "·", "⋅", `\times`, `\cdot`} {
		if hasAt(line, at, sign) {
			times = at + len([]rune(sign))
			break
		}
	}

	ten := skipSpaces(line, times)
	if times == at || !hasAt(line, ten, "10") {
		return "0", i
	}

	if exponent, end = readPower(line, ten+2); exponent != "" {
		return exponent, end
	}

	return "0", i
}

// readPower reads a power, such as ^5, ^{-5} and ⁵. It is empty if there is none.
func readPower(line []rune, i int) (power string, end int) {
	if isAny(line, i, "^") {
		if isAny(line, i+1, "{(") {
			power, end = readInteger(line, i+2)
			if power == "" || !isAny(line, end, "})") {
				return "", i
			}
			return power, end + 1
		}
		return readInteger(line, i+1)
	}

	plain := []rune{}
	for end = i; end < len(line); end++ {
		at := slices.Index(superscripts, line[end])
		if at < 0 {
			break
		}
		plain = append(plain, plainScripts[at])
	}

	power, read := readInteger(plain, 0)
	if read < len(plain) {
		return "", i
	}

	return power, end
}

// readInteger reads an integer with its sign. It is empty if there is none.
func readInteger(line []rune, i int) (integer string, end int) {
	end = i
	if isAny(line, end, "-+") {
		end++
	}

	first := end
	for isDigit(line, end) {
		end++
	}

	if end == first {
		return "", i
	}

	return string(line[i:end]), end
}

// skipSpaces returns the place behind the spaces at i.
func skipSpaces(line []rune, i int) int {
	for isAny(line, i, " ") {
		i++
	}
	return i
}

// hasAt reports whether a text stands at i.
func hasAt(line []rune, i int, text string) bool {
	for _, r := range text {
		if i >= len(line) || line[i] != r {
			return false
		}
		i++
	}

	return true
}
