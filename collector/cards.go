package collector

import (
	"strconv"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
)

// Each worker meters all cards of its host, and takes what they use for its own. Where
// several workers see a card, each joule goes to those whose requests ended since it was
// counted last, by their number: the rule by which a worker shares among its runs.

// cards is what workers that see the same cards have used of them. Its zero value knows
// nothing.
type cards struct {
	pools map[string]float64          // joules of each card that no request has taken yet
	ended map[string]map[string]int64 // requests that have ended, by worker and run
}

// cardKey tells cards apart.
func cardKey(host string, c proto.GPU) string {
	if c.UUID != "" {
		return c.UUID
	}
	return host + " " + strconv.Itoa(c.Index)
}

// hearing is a worker before and after an announcement.
type hearing struct {
	told          proto.WorkerInfo
	before, after journal.WorkerSession
	known         bool // it was heard before
}

// share corrects the stints of workers that share cards, so that each joule is in one of
// them.
func (c *cards) share(run string, heard []hearing) {
	seers, fresh := map[string][]int{}, make([]map[string]int64, len(heard))
	for i, h := range heard {
		fresh[i] = c.freshOf(h)
		for _, card := range h.told.GPU {
			if card.EnergyJoules != nil {
				key := cardKey(h.told.Host, card)
				seers[key] = append(seers[key], i)
			}
		}
	}

	c.ended = map[string]map[string]int64{}
	for _, h := range heard {
		c.ended[h.after.Key()] = requestsOf(h.told)
	}

	right, shares := make([]float64, len(heard)), make([]bool, len(heard))
	pools := map[string]float64{}
	for key, who := range seers {
		pool := c.pools[key] + used(key, heard, who)
		all := int64(0)
		for _, i := range who {
			shares[i] = shares[i] || len(who) > 1
			for _, n := range fresh[i] {
				all += n
			}
		}

		if all == 0 {
			pools[key] = pool // long answers take it, too
			continue
		}

		for _, i := range who {
			right[i] += pool * float64(fresh[i][run]) / float64(all)
		}
	}

	c.pools = pools

	for i := range heard {
		h := &heard[i]
		if !shares[i] || h.after.Usage == nil || h.after.Usage.EnergyJoules == nil {
			continue
		}

		if own := joules(h.after) - joules(h.before); h.known {
			h.after.OverlapJoules += own - right[i]
		} else {
			// What was before is not known: its part is that of its requests.
			h.after.OverlapJoules = own * (1 - partOf(i, heard, seers))
		}
	}
}

// freshOf are the requests of a worker that ended since it was heard last, by run. None,
// if that is not known.
func (c *cards) freshOf(h hearing) map[string]int64 {
	before, known := c.ended[h.after.Key()]
	if !known {
		return nil
	}

	fresh := map[string]int64{}
	for run, n := range requestsOf(h.told) {
		if n < before[run] {
			fresh[run] = n // the run was forgotten, and goes on
		} else {
			fresh[run] = n - before[run]
		}
	}

	return fresh
}

func requestsOf(w proto.WorkerInfo) map[string]int64 {
	requests := map[string]int64{}
	for run, share := range w.Runs {
		requests[run] = share.Requests
	}
	return requests
}

// used is what a card took since it was read last, as the worker says that has seen most.
func used(key string, heard []hearing, who []int) (most float64) {
	for _, i := range who {
		h := heard[i]
		for _, card := range h.told.GPU {
			if cardKey(h.told.Host, card) != key || card.EnergyJoules == nil {
				continue
			}
			if meter := lastReading(h.before, card); meter != nil {
				most = max(most, *card.EnergyJoules-*meter)
			}
		}
	}

	return most
}

// partOf is the part of a worker in all requests that have ended at those with which it
// shares a card, 0 to 1.
func partOf(i int, heard []hearing, seers map[string][]int) float64 {
	with := map[int]bool{i: true}
	for _, who := range seers {
		for _, j := range who {
			if j == i {
				for _, other := range who {
					with[other] = true
				}
			}
		}
	}

	own, all := int64(0), int64(0)
	for j := range with {
		for _, n := range requestsOf(heard[j].told) {
			if all += n; j == i {
				own += n
			}
		}
	}

	if all == 0 {
		return 1
	}

	return float64(own) / float64(all)
}

// joules is what a stint's worker says to have spent on the run.
func joules(s journal.WorkerSession) float64 {
	share := journal.AddUsage(s.Usage, s.EarlierUsage)
	if share == nil || share.EnergyJoules == nil {
		return 0
	}
	return *share.EnergyJoules
}
