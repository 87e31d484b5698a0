package gpu

import "time"

// longestGap is the longest time between two readings over which the power is taken to have
// changed linearly.
const longestGap = 5 * time.Second

// energyMeter adds up the energy of one card. Its zero value has read no power yet.
type energyMeter struct {
	joules float64
	watts  float64
	at     time.Time // of the last reading of the power
}

// addPower takes a reading of the power. It returns the time that it could not count, since the
// last reading was too long ago.
func (m *energyMeter) addPower(watts float64, at time.Time) (uncounted time.Duration) {
	if !m.at.IsZero() {
		if passed := at.Sub(m.at); passed <= longestGap {
			m.joules += (m.watts + watts) / 2 * passed.Seconds()
		} else {
			uncounted = passed
		}
	}

	m.watts, m.at = watts, at

	return uncounted
}

// totalJoules returns the energy in joules; nil if no power was ever read.
func (m *energyMeter) totalJoules() *float64 {
	if m.at.IsZero() {
		return nil
	}
	joules := m.joules
	return &joules
}
