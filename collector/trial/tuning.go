package trial

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/internal/figures"
)

// Tuning is what a search for the settings of a model server has found. It chooses the variant of its trial: a rank by
// speed alone would choose the luckiest of many values, also one whose answers are worse.
type Tuning struct {
	// Found reports whether settings are faster than the command as it is, beyond doubt.
	Found bool `json:"found"`
	// Winner is the name of the variant with the best settings, or of the command as it is; empty: that has no speed.
	Winner string `json:"winner,omitempty"`
	// Command starts the server with the settings of the winner. It may have placeholders.
	Command string `json:"command"`
	// Flags are those that the winner adds to the command, as a shell has them.
	Flags string `json:"flags,omitempty"`
	// Gain is the speed of the winner over that of the command as it is; nil: not found.
	Gain *Difference `json:"gain,omitempty"`
	// Confirmed reports whether the gain is of two measurements at the end, after the choice.
	Confirmed bool `json:"confirmed"`
	// Late reports whether the time of the trial was over before the search was.
	Late bool `json:"late,omitempty"`
}

// inWords says in a clause without its full stop what the search has found. done: it is over.
func (t *Tuning) inWords(done bool) string {
	text := "no setting is faster than the command as it is, as far as this trial shows"
	if t.Found {
		text = fmt.Sprintf("%s times the throughput of the command as it is (%s to %s) with %s", figures.Fixed(t.Gain.Ratio, 2),
			figures.Fixed(t.Gain.Low, 2), figures.Fixed(t.Gain.High, 2), t.Flags)
	}

	if t.Found && !t.Confirmed && done {
		text += ", not measured a second time"
	}
	if t.Late {
		text += "; the time was over before all was tried"
	}

	return text
}
