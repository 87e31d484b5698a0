package report

import "testing"

func TestFigures(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ got, want string }{
		{count(0), "0"},
		{count(999), "999"},
		{count(1_000), "1,000"},
		{count(-1_234_567), "-1,234,567"},
		{plural(1, "request"), "1 request"},
		{plural(5000, "request"), "5,000 requests"},
		{amount(0), "0.00"},
		{amount(1.3867), "1.39"},
		{amount(9.996), "10.0"},
		{amount(99.96), "100"},
		{amount(1533.4665), "1,533"},
		{amount(0.0031), "0.0031"},
		{amount(-38.94), "-38.9"},
		{shortly(7.211113), "7.2 s"},
		{shortly(678.5), "678 s"},
		{shortly(0.0314), "0.031 s"},
		{shortly(0), "0 s"},
		{shortly(99.96), "100 s"},
		{seconds(26), "26.0 s"},
		{seconds(2183.026), "2,183 s (36 min)"},
		{duration(72.11), "1.2 min"},
		{duration(3605.6), "60 min"},
		{duration(36055.6), "10 h"},
		{duration(144222), "40 h"},
		{duration(5400), "1.5 h"},
		{duration(10 * 86400), "10 days"},
		{duration(12), "12.0 s"},
		{size(0), "0 B"},
		{size(1023), "1,023 B"},
		{size(11 << 30), "11.0 GiB"},
		{size(3 << 40), "3.00 TiB"},
		// A share is all or nothing only if it is.
		{share(10, 10), "100%"},
		{share(0, 10), "0%"},
		{share(9_999_999, 10_000_000), "99.99999%"},
		{share(1, 1_000_000), "0.0001%"},
		{share(1, 3), "33%"},
		{share(2438, 2445), "99.7%"},
		{share(1, 20), "5%"},
		{change(-0.3894), "-39%"},
		{change(0.021), "+2.1%"},
		{change(0), "0%"},
		{change(-0.0001), "0%"},
		{change(25.1), "x26.1"},
		{times(2.354), "2.35 times"},
		{times(3), "3 times"},
		{times(150), "150 times"},
		{money(0.0031), "0.0031"},
		{money(1234.567), "1,234.57"},
		{money(0), "0.00"},
		{plain(0.5), "0.5"},
		{plain(12000), "12,000"},
		{plain(0.1 + 0.2), "0.3"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestClock(t *testing.T) {
	t.Parallel()

	for seconds, want := range map[float64]string{
		0:     "0s",
		5:     "5s",
		10:    "10s",
		30:    "30s",
		60:    "1m",
		90:    "1m30s",
		600:   "10m",
		3600:  "1h",
		5400:  "1h30m",
		36000: "10h",
		3610:  "1h0m10s",
	} {
		if got := clock(seconds); got != want {
			t.Errorf("%v s is %q, want %q", seconds, got, want)
		}
	}
}
