package quality

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
)

func TestFindLastNumber(t *testing.T) {
	t.Parallel()

	none := math.NaN()
	for text, want := range map[string]float64{
		"":                              none,
		"no number":                     none,
		"The answer is 42.":             42,
		"The answer is 42":              42,
		"first 1, then 2\n\n**3**\n\n":  3,
		"It is 7.\nThat is all.":        7,
		"42\r\n":                        42,
		"x=7)":                          7,
		`\boxed{-12}`:                   -12,
		"-5":                            -5,
		"−5":                            -5,
		"–5 °C":                         -5,
		"+5":                            5,
		"pages 3–5":                     5,
		"10 - 5":                        5,
		"(3)-5":                         5,
		"it is -.5":                     -0.5,
		".5":                            0.5,
		"section (a).5":                 5,
		"$1,200.50":                     1200.5,
		"-$5":                           -5,
		"$-5":                           -5,
		"€ 1.234.567":                   1234567,
		"45%":                           45,
		"1,234":                         1234,
		"1,234,567.89":                  1234567.89,
		"1,234.":                        1234,
		"1.234,5":                       1234.5,
		"1.234":                         1.234,
		"0,5":                           0.5,
		"0,125":                         0.125,
		"12,34":                         12.34,
		"12,34,567":                     1234567,
		"1,2,3":                         3,
		"1, 2, 3":                       3,
		"1.5,2.5":                       2.5,
		"1,234,56":                      56,
		"1.2.3":                         3,
		"1'234'567":                     1234567,
		"1’234.5":                       1234.5,
		"1\u202f234\u00a0567,8":         1234567.8,
		"1_000_000":                     1000000,
		"10 500":                        500,
		"2024-11-29":                    29,
		"11/29/2024":                    2024,
		"3/4":                           0.75,
		"-3/4":                          -0.75,
		"3⁄4":                           0.75,
		"3/0":                           0,
		"1.5/2":                         2,
		"3/4.5":                         4.5,
		"12:30":                         30,
		"1e5":                           1e5,
		"1.5E-3":                        1.5e-3,
		"2e":                            2,
		"3e4x":                          3,
		"6.02 × 10^23":                  6.02e23,
		"6.02x10^{-3}":                  6.02e-3,
		`6.02 \times 10^{23}`:           6.02e23,
		"5·10⁻³":                        5e-3,
		"2 * 10 apples":                 10,
		"2^10":                          10,
		"1e999":                         none,
		"7 and then 1e999":              none,
		"The answer is 42 (see H2O)":    42,
		"42, said GPT4 of x_1 and v2.5": 42,
		"GPT-4":                         4,
		"5km":                           5,
		"答案是42":                         42,
		"答案是-42。":                       -42,
		"٤٢":                            42,
		"１２３":                           123,
		"٣٫٥":                           3.5,
		"-0":                            0,
		"0":                             0,
		"007":                           7,
	} {
		got, ok := findLastNumber(text)
		if !ok {
			got = none
		}

		if got != want && !(math.IsNaN(got) && math.IsNaN(want)) || math.Signbit(got) && got == 0 {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestParseExpectedNumber(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]string{
		"42":                              "42",
		" -1,234.5 ":                      "-1234.5",
		"$1,200":                          "1200",
		"-$5":                             "-5",
		"5 €":                             "5",
		"45 %":                            "45",
		"3/4":                             "0.75",
		"1e3":                             "1000",
		"0,5":                             "0.5",
		"She sells 9 eggs.\n9*2\n#### 18": "18",
		"#### 1,000":                      "1000",
		"":                                "none",
		"about 5":                         "none",
		"5 apples":                        "none",
		"2024-11-29":                      "none",
		"1,2,3":                           "none",
		"1 2":                             "none",
		"1e999":                           "none",
		"A":                               "none",
		"1\n2":                            "none",
		"#### none":                       "none",
	} {
		got := "none"
		if n, ok := parseExpectedNumber(text); ok {
			got = strconv.FormatFloat(n, 'f', -1, 64)
		}

		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestSameNumber(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		a, b float64
		want bool
	}{
		{0, 0, true}, {1, 1 + 1e-10, true}, {1, 1 + 1e-8, false}, {1e12, 1e12 + 100, true}, {0, 1e-12, false},
		{0.1 + 0.2, 0.3, true}, {1, -1, false},
	} {
		if got := sameNumber(c.a, c.b); got != c.want {
			t.Errorf("%v and %v: %t", c.a, c.b, got)
		}
	}
}

// FuzzFindLastNumber ensures that a number at the end of any text is found, however it is written.
func FuzzFindLastNumber(f *testing.F) {
	for _, text := range []string{"1.234,5", "3/4", "−5", "x=7)", "2024-11-29", "6 × 10^{", "5⁻", "\xff1", "𝟘1", "1e+"} {
		f.Add(text, 1234.5)
	}

	f.Fuzz(func(t *testing.T, text string, want float64) {
		if n, ok := findLastNumber(text); ok && (math.IsNaN(n) || math.IsInf(n, 0)) {
			t.Errorf("%q is %v", text, n)
		}

		if expected, ok := parseExpectedNumber(text); ok && !strings.Contains(text, "####") {
			if n, found := findLastNumber(text); !found || n != expected {
				t.Errorf("%q is %v as an answer, and %v as the expected one", text, n, expected)
			}
		}

		if math.IsNaN(want) || math.IsInf(want, 0) {
			return
		}

		forms := []string{strconv.FormatFloat(want, 'g', -1, 64), strconv.FormatFloat(want, 'f', -1, 64)}
		forms = append(forms, groupThousands(forms[1]), strings.Replace(forms[1], "-", "−$", 1))
		for _, form := range forms {
			for _, whole := range []string{text + "\n" + form, text + " = " + form + ".", text + "\n(" + form + "%)\n.\n"} {
				if got, ok := findLastNumber(whole); !ok || got != want {
					t.Errorf("%q is %v (%t), want %v", whole, got, ok, want)
				}
			}
		}
	})
}

// groupThousands separates the thousands of a decimal number.
func groupThousands(decimal string) string {
	whole, rest, ok := strings.Cut(decimal, ".")
	sign := ""
	if whole[0] == '-' {
		sign, whole = "-", whole[1:]
	}

	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}

	if ok {
		rest = "." + rest
	}

	return fmt.Sprint(sign, whole, rest)
}
