package trial

import "github.com/promptmill/promptmill/collector/estimate"

// Speed is what is known of the speed of a variant, in answered requests per second.
type Speed struct {
	// Low and High hold the rate nine times in ten, and Rate is as often too low as too high. All are zero where there
	// is a Problem.
	Rate float64 `json:"rate"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	// Mean is the mean rate of the run, also where there is a problem.
	Mean float64 `json:"mean"`

	// Problem is the reason why there is no interval, and Needed the number of requests that would give one.
	Problem estimate.Problem `json:"problem,omitempty"`
	Needed  int              `json:"needed,omitempty"`
}
