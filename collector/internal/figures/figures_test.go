package figures

import "testing"

func TestFigures(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ got, want string }{
		{Count(0), "0"},
		{Count(999), "999"},
		{Count(1_000), "1,000"},
		{Count(-1_234_567), "-1,234,567"},
		{Plural(1, "request"), "1 request"},
		{Plural(5000, "request"), "5,000 requests"},
		{Amount(0), "0.00"},
		{Amount(1.3867), "1.39"},
		{Amount(9.996), "10.0"},
		{Amount(99.96), "100"},
		{Amount(1533.4665), "1,533"},
		{Amount(0.0031), "0.0031"},
		{Amount(-38.94), "-38.9"},
		{Short(7.211113), "7.2 s"},
		{Short(678.5), "678 s"},
		{Short(0.0314), "0.031 s"},
		{Short(0), "0 s"},
		{Short(99.96), "100 s"},
		{Seconds(26), "26.0 s"},
		{Seconds(2183.026), "2,183 s (36 min)"},
		{Duration(72.11), "1.2 min"},
		{Money(0.0000796), "0.000080"},
		{Money(0.004), "0.0040"},
		{Money(-0.05), "-0.050"},
		{Money(0), "0.00"},
		{Money(12.345), "12.35"},
		{Range(58.2, 61), "58.2 to 61.0 s"},
		{Range(58.2, 300), "58.2 s to 5.0 min"},
		{Range(61, 300), "1.0 to 5.0 min"},
		{Duration(3605.6), "60 min"},
		{Duration(36055.6), "10 h"},
		{Duration(144222), "40 h"},
		{Duration(5400), "1.5 h"},
		{Duration(10 * 86400), "10 days"},
		{Duration(12), "12.0 s"},
		{Size(0), "0 B"},
		{Size(1023), "1,023 B"},
		{Size(11 << 30), "11.0 GiB"},
		{Size(3 << 40), "3.00 TiB"},
		// A share is all or nothing only if it is.
		{Share(10, 10), "100%"},
		{Share(0, 10), "0%"},
		{Share(9_999_999, 10_000_000), "99.99999%"},
		{Share(1, 1_000_000), "0.0001%"},
		{Share(1, 3), "33%"},
		{Share(2438, 2445), "99.7%"},
		{Share(1, 20), "5%"},
		{Change(-0.3894), "-39%"},
		{Change(0.021), "+2.1%"},
		{Change(0), "0%"},
		{Change(-0.0001), "0%"},
		{Change(25.1), "x26.1"},
		{Times(2.354), "2.35 times"},
		{Times(3), "3 times"},
		{Times(150), "150 times"},
		{Money(0.0031), "0.0031"},
		{Money(1234.567), "1,234.57"},
		{Money(0), "0.00"},
		{Plain(0.5), "0.5"},
		{Plain(12000), "12,000"},
		{Plain(0.1 + 0.2), "0.3"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
