package telemetry

import (
	"errors"
	"strconv"
)

// ParseShare reads a share: a number from 0 to 1.
func ParseShare(text string) (float64, error) {
	share, err := strconv.ParseFloat(text, 64)
	if err != nil || !(share >= 0 && share <= 1) {
		return 0, errors.New("it is not a number from 0 to 1")
	}
	return share, nil
}
