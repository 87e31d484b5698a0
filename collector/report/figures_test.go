package report

import "testing"

func TestFigures(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ got, want string }{
		{formatCount(0), "0"},
		{formatCount(999), "999"},
		{formatCount(1_000), "1,000"},
		{formatCount(-1_234_567), "-1,234,567"},
		{formatPlural(1, "request"), "1 request"},
		{formatPlural(5000, "request"), "5,000 requests"},
		{formatAmount(0), "0.00"},
		{formatAmount(1.3867), "1.39"},
		{formatAmount(9.996), "10.0"},
		{formatAmount(99.96), "100"},
		{formatAmount(1533.4665), "1,533"},
		{formatAmount(0.0031), "0.0031"},
		{formatAmount(-38.94), "-38.9"},
		{formatShort(7.211113), "7.2 s"},
		{formatShort(678.5), "678 s"},
		{formatShort(0.0314), "0.031 s"},
		{formatShort(0), "0 s"},
		{formatShort(99.96), "100 s"},
		{formatSeconds(26), "26.0 s"},
		{formatSeconds(2183.026), "2,183 s (36 min)"},
		{formatDuration(72.11), "1.2 min"},
		{formatMoney(0.0000796), "0.000080"},
		{formatMoney(0.004), "0.0040"},
		{formatMoney(-0.05), "-0.050"},
		{formatMoney(0), "0.00"},
		{formatMoney(12.345), "12.35"},
		{formatRange(58.2, 61), "58.2 to 61.0 s"},
		{formatRange(58.2, 300), "58.2 s to 5.0 min"},
		{formatRange(61, 300), "1.0 to 5.0 min"},
		{formatDuration(3605.6), "60 min"},
		{formatDuration(36055.6), "10 h"},
		{formatDuration(144222), "40 h"},
		{formatDuration(5400), "1.5 h"},
		{formatDuration(10 * 86400), "10 days"},
		{formatDuration(12), "12.0 s"},
		{formatSize(0), "0 B"},
		{formatSize(1023), "1,023 B"},
		{formatSize(11 << 30), "11.0 GiB"},
		{formatSize(3 << 40), "3.00 TiB"},
		// A share is all or nothing only if it is.
		{formatShare(10, 10), "100%"},
		{formatShare(0, 10), "0%"},
		{formatShare(9_999_999, 10_000_000), "99.99999%"},
		{formatShare(1, 1_000_000), "0.0001%"},
		{formatShare(1, 3), "33%"},
		{formatShare(2438, 2445), "99.7%"},
		{formatShare(1, 20), "5%"},
		{formatChange(-0.3894), "-39%"},
		{formatChange(0.021), "+2.1%"},
		{formatChange(0), "0%"},
		{formatChange(-0.0001), "0%"},
		{formatChange(25.1), "x26.1"},
		{formatTimes(2.354), "2.35 times"},
		{formatTimes(3), "3 times"},
		{formatTimes(150), "150 times"},
		{formatMoney(0.0031), "0.0031"},
		{formatMoney(1234.567), "1,234.57"},
		{formatMoney(0), "0.00"},
		{formatPlain(0.5), "0.5"},
		{formatPlain(12000), "12,000"},
		{formatPlain(0.1 + 0.2), "0.3"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
