package trial

import (
	"math"

	"github.com/promptmill/promptmill/collector/estimate"
	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/proto"
)

// Row is a variant with its figures. What is not known is null.
type Row struct {
	Variant
	// Beside reports that it is of another trial, or another run.
	Beside bool `json:"beside,omitempty"`

	// Requests ended, and Success is the share of them that were answered.
	Requests int            `json:"requests"`
	Success  *quality.Share `json:"success"`
	// Speed is null if no request was answered.
	Speed *Speed `json:"speed"`
	// OutputTokensPerSec and InputTokensPerSec are the tokens of a mean answered request at that speed.
	OutputTokensPerSec *float64 `json:"output_tokens_per_sec"`
	InputTokensPerSec  *float64 `json:"input_tokens_per_sec"`
	// LatencyP50Seconds and LatencyP99Seconds are of answered requests.
	LatencyP50Seconds *float64 `json:"latency_p50_seconds"`
	LatencyP99Seconds *float64 `json:"latency_p99_seconds"`
	// LoadSeconds is the time from the start of the server until it was ready.
	LoadSeconds *float64 `json:"load_seconds"`
	Memory      Memory   `json:"memory_bytes"`
	// JoulesPer1000Answers is the energy of the cards for 1,000 answers.
	JoulesPer1000Answers *float64 `json:"joules_per_1000_answers"`
	// CostPer1000Answers is the price of the machine and of the energy, as far as prices are known, and
	// APICostPer1000Answers that of the same tokens at an API.
	CostPer1000Answers    *float64 `json:"cost_per_1000_answers"`
	APICostPer1000Answers *float64 `json:"api_cost_per_1000_answers"`

	// SpeedDifference is its speed over that of the best variant, CostDifference its cost over the best one's, and
	// QualityDifference its quality less the best one's; null: it is the best, or one of both is not known.
	SpeedDifference   *Difference         `json:"speed_difference"`
	CostDifference    *Difference         `json:"cost_difference"`
	QualityDifference *quality.Difference `json:"quality_difference"`

	Estimates []Estimate `json:"estimates,omitempty"`

	Metadata *metadata.Run `json:"metadata"`
}

// Memory is how the model server used the memory of the cards.
type Memory struct {
	Weights *int64 `json:"weights"`
	KVCache *int64 `json:"kv_cache"`
	Graphs  *int64 `json:"graphs"`
	Used    *int64 `json:"used"` // the most, by all that runs on the cards
}

// Estimate is the time of a number of requests in seconds, without the loading of the model. Low and High hold it nine
// times in ten. Where there is a problem, all three are what the mean rate would make of it.
type Estimate struct {
	Requests int              `json:"requests"`
	Low      float64          `json:"low"`
	Median   float64          `json:"median"`
	High     float64          `json:"high"`
	Problem  estimate.Problem `json:"problem,omitempty"`
}

// measureVariant takes the figures of a variant from its metadata.
func measureVariant(v Variant, o Options) Row {
	row := Row{Variant: v, Metadata: v.Run}
	run := v.Run
	if run == nil {
		return row
	}

	results := run.Results
	row.Requests = results.CountSent()
	if row.Requests > 0 {
		row.Success = quality.NewShare(results.SuccessCount, row.Requests)
	}

	row.LoadSeconds = finite(results.ModelLoadTimeSeconds)
	row.measureMemory()
	if results.SuccessCount == 0 {
		return row
	}

	if d := results.LatencySeconds; d != nil {
		row.LatencyP50Seconds, row.LatencyP99Seconds = &d.P50, &d.P99
	}

	if s := MeasureSpeed(v); s.rate() > 0 && !math.IsInf(s.rate(), 0) {
		row.Speed = &s
		row.OutputTokensPerSec = row.tokenRate(results.CompletionTokens)
		row.InputTokensPerSec = row.tokenRate(results.PromptTokens)
	}

	row.measureCosts(o.Prices)
	row.estimateTimes(o.Estimates)

	return row
}

// shortName is the name as sentences and tables have it: the JSON form and the settings have all of a long one.
func (r *Row) shortName() string { return shorten(r.Name, longestLabel) }

// rate is the best guess of the speed: that of the steady part, or else the mean.
func (s Speed) rate() float64 {
	if s.Problem == estimate.NoProblem {
		return s.Rate
	}
	return s.Mean
}

// loadParts are the parts of the loading of the model, as far as they are known.
func (r *Row) loadParts() (parts proto.ModelLoad) {
	if r.Run != nil && r.Run.Results.ModelLoad != nil {
		parts = *r.Run.Results.ModelLoad
	}
	return parts
}

// tokenRate is the rate of tokens of mean requests at the speed of the row; nil: not known, or there are none.
func (r *Row) tokenRate(tokens *int64) *float64 {
	if tokens == nil || *tokens <= 0 {
		return nil
	}
	return finite(new(float64(*tokens) / float64(r.Run.Results.SuccessCount) * r.Speed.rate()))
}

func (r *Row) measureMemory() {
	r.Memory.Weights = report.ModelSize(r.Run)
	r.Memory.Used = report.PeakMemory(r.Run)
	for _, w := range r.Run.Workers {
		r.Memory.KVCache = metadata.Most(r.Memory.KVCache, w.MemoryBytes.KVCache)
		r.Memory.Graphs = metadata.Most(r.Memory.Graphs, w.MemoryBytes.Graphs)
	}
}

// measureCosts finds the energy and the cost of 1,000 answers.
func (r *Row) measureCosts(p report.Prices) {
	results := r.Run.Results
	perThousand := 1000 / float64(results.SuccessCount)
	if e := results.EnergyJoules; e != nil {
		r.JoulesPer1000Answers = finite(new(*e * perThousand))
	}

	var cost float64
	known := false
	if r.PricePerHour != nil && r.Speed != nil {
		cost, known = *r.PricePerHour/3600*1000/r.Speed.rate(), true
	}
	if p.KWh != nil && r.JoulesPer1000Answers != nil {
		cost, known = cost+*r.JoulesPer1000Answers/figures.JoulesPerKWh**p.KWh, true
	}
	if known {
		r.CostPer1000Answers = finite(&cost)
	}

	if cost := p.OfTokens(results); cost != nil && (p.In != nil || p.Out != nil) {
		r.APICostPer1000Answers = finite(new(*cost * perThousand))
	}
}

func (r *Row) estimateTimes(counts []int) {
	run := measuredPart(estimate.FromMetadata(r.Run), r.Variant)
	for _, n := range counts {
		e := estimate.Of(run, n, 0)
		known := Estimate{
			Requests: n,
			Low:      e.Low,
			Median:   e.Median,
			High:     e.High,
			Problem:  e.Problem,
		}
		if e.Problem != estimate.NoProblem {
			known.Low, known.Median, known.High = e.Naive, e.Naive, e.Naive
		}

		if finite(&known.High) != nil {
			r.Estimates = append(r.Estimates, known)
		}
	}
}

// inputSHA256 is the checksum of what the variant ran; empty: not known.
func (r *Row) inputSHA256() string {
	if r.Run == nil {
		return ""
	}
	return r.Run.Test.InputSHA256
}

// finite is v, or nil if it is not known or no number.
func finite(v *float64) *float64 {
	if v == nil || math.IsNaN(*v) || math.IsInf(*v, 0) || *v < 0 {
		return nil
	}
	return v
}

// qualityOf is the quality of a row by a measure, with its interval; ok: it is known.
func (r *Row) qualityOf(m Measure) (of quality.Difference, ok bool) {
	if r.Quality == nil {
		return of, false
	}

	share := map[Measure]*quality.Share{Right: r.Quality.Expected, Formed: r.Quality.Schema}[m]
	switch s := r.Quality.Score; {
	case m == Scored && s != nil && s.Of > 0:
		return quality.Difference{Mean: s.Mean, Low: s.Low, High: s.High}, true
	case share != nil && share.Of > 0:
		return quality.Difference{Mean: share.Share, Low: share.Low, High: share.High}, true
	}

	return of, false
}
