package remaining_test

import (
	"fmt"
	"time"

	"github.com/promptmill/promptmill/collector/remaining"
)

func Example() {
	var e remaining.Estimator
	for second := range 120 { // ten requests a second
		e.Add(remaining.Sample{
			At:       time.Unix(int64(second), 0),
			Done:     10 * second,
			Left:     9000 - 10*second,
			InFlight: 10,
			Workers:  1,
			Working:  true,
		})
	}

	i := e.Interval()
	fmt.Printf("%.0f to %.0f s, probably %.0f s\n", i.Low, i.High, i.Expected)

	// Output:
	// 780 to 786 s, probably 783 s
}
