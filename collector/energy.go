package collector

import (
	"strconv"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// energyLedger divides the energy of cards that several workers see.
//
// Each worker meters all cards of its host, and counts all their energy. Where several
// workers see a card, each joule goes to the workers whose requests ended since it was
// counted last, by their number: the rule by which a worker divides its energy among its
// runs. The zero value knows nothing.
type energyLedger struct {
	pools map[string]float64          // joules of each card that no request has taken yet
	ended map[string]map[string]int64 // requests that have ended, by worker and run
}

// sessionUpdate is a worker session before and after an announcement.
type sessionUpdate struct {
	info          proto.WorkerInfo
	before, after journal.WorkerSession
	known         bool // there was an announcement before
}

// cardKey identifies a card among those of all hosts.
func cardKey(host string, c proto.GPU) string {
	if c.UUID != "" {
		return c.UUID
	}
	return host + " " + strconv.Itoa(c.Index)
}

// divideEnergy corrects the sessions of workers that share cards, so that each joule is in one of
// them.
func (l *energyLedger) divideEnergy(run string, updates []sessionUpdate) {
	watchers, fresh := map[string][]int{}, make([]map[string]int64, len(updates))
	for i, u := range updates {
		fresh[i] = l.countFresh(u)

		for _, card := range u.info.GPU {
			if card.EnergyJoules != nil {
				key := cardKey(u.info.Host, card)
				watchers[key] = append(watchers[key], i)
			}
		}
	}

	l.ended = map[string]map[string]int64{}
	for _, u := range updates {
		l.ended[u.after.Key()] = countByRun(u.info)
	}

	due, shares := make([]float64, len(updates)), make([]bool, len(updates))
	pools := map[string]float64{}
	for key, workers := range watchers {
		pool := l.pools[key] + energySince(key, updates, workers)
		total := int64(0)
		for _, i := range workers {
			shares[i] = shares[i] || len(workers) > 1

			for _, n := range fresh[i] {
				total += n
			}
		}

		if total == 0 {
			pools[key] = pool // for the requests that end later: long answers take energy, too
			continue
		}

		for _, i := range workers {
			due[i] += pool * float64(fresh[i][run]) / float64(total)
		}
	}

	l.pools = pools

	for i := range updates {
		u := &updates[i]
		if !shares[i] || u.after.Usage == nil || u.after.Usage.EnergyJoules == nil {
			continue
		}

		if counted := reportedJoules(u.after) - reportedJoules(u.before); u.known {
			u.after.OverlapJoules += counted - due[i]
		} else {
			// The earlier energy is unknown: the worker's part follows its share of the requests.
			u.after.OverlapJoules = counted * (1 - requestShare(i, updates, watchers))
		}
	}
}

// countFresh returns the requests of a worker that ended since its last announcement, by
// run; nil, if that is not known.
func (l *energyLedger) countFresh(u sessionUpdate) map[string]int64 {
	before, known := l.ended[u.after.Key()]
	if !known {
		return nil
	}

	fresh := map[string]int64{}
	for run, n := range countByRun(u.info) {
		if n < before[run] {
			fresh[run] = n // the worker has forgotten the run, and counts from 0 again
		} else {
			fresh[run] = n - before[run]
		}
	}

	return fresh
}

// countByRun returns the requests of a worker that have ended, by run.
func countByRun(w proto.WorkerInfo) map[string]int64 {
	requests := map[string]int64{}
	for run, usage := range w.Runs {
		requests[run] = usage.Requests
	}

	return requests
}

// energySince returns the joules that a card has used since it was read last, as the worker
// reports that has seen most.
func energySince(key string, updates []sessionUpdate, workers []int) (highest float64) {
	for _, i := range workers {
		u := updates[i]
		for _, card := range u.info.GPU {
			if cardKey(u.info.Host, card) != key || card.EnergyJoules == nil {
				continue
			}
			if meter := lastReading(u.before, card); meter != nil {
				highest = max(highest, *card.EnergyJoules-*meter)
			}
		}
	}

	return highest
}

// requestShare returns the part of a worker in all requests that have ended at the workers
// with which it shares a card, from 0 to 1.
func requestShare(i int, updates []sessionUpdate, watchers map[string][]int) float64 {
	with := map[int]bool{i: true}
	for _, workers := range watchers {
		for _, j := range workers {
			if j == i {
				for _, other := range workers {
					with[other] = true
				}
			}
		}
	}

	own, total := int64(0), int64(0)
	for j := range with {
		for _, n := range countByRun(updates[j].info) {
			if total += n; j == i {
				own += n
			}
		}
	}

	if total == 0 {
		return 1
	}

	return float64(own) / float64(total)
}

// reportedJoules returns the joules that a worker says it has spent on the run.
func reportedJoules(s journal.WorkerSession) float64 {
	usage := journal.AddUsage(s.Usage, s.EarlierUsage)
	if usage == nil {
		return 0
	}
	return metadata.OrZero(usage.EnergyJoules)
}
