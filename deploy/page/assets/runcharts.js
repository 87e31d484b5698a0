// The charts of a run.

import {Timeline, TimeChart} from "./charts.js"
import {element, KeyedList, setHidden, setText} from "./dom.js"
import {formatClock, formatClockSeconds, formatCount, formatRate, formatSeconds} from "./format.js"
import {hasEnded} from "./health.js"
import {Histogram} from "./histogram.js"

// mostMarkers bounds the markers that are described below the charts, the latest ones.
const mostMarkers = 3

/** RunCharts are the charts over time, and the histograms. What is not known has no chart. */
export class RunCharts {
  constructor() {
    this.charts = [
      [new TimeChart("Output tokens per second", [{name: "output tokens", colour: "ink"}], formatRate),
        (t) => [t.rates("completion_tokens")]],
      [new TimeChart("Requests per second", [{name: "requests", colour: "ink"}], formatRate),
        (t) => [t.rates("requests")]],
      [new TimeChart("In flight", [{name: "requests", colour: "ink"}, {name: "limit", colour: "soft", kind: "dotted"}], formatCount, true),
        (t) => [t.tops("in_flight"), t.tops("limit") ?? t.times.map(() => null)]],
      [new TimeChart("Latency", [{name: "p50", colour: "ink"}, {name: "p99", colour: "second"}], formatSeconds),
        (t) => [t.means("latency_p50_seconds"), t.tops("latency_p99_seconds")]],
      [new TimeChart("Failed requests", [{name: "failed", colour: "bad", kind: "bars"}], formatCount, true),
        (t) => [t.sums("failed")]],
    ]
    this.charts[0][0].node.classList.add("wide")
    this.latency = new Histogram("Latency", formatSeconds)
    this.output = new Histogram("Output tokens", formatCount)
    this.prompt = new Histogram("Prompt tokens", formatCount)

    this.markers = element("ul", {class: "markers"})
    this.markerRows = new KeyedList(this.markers, (m) => `${m.kind} ${m.from}`, () => new MarkerRow())
    this.timeSection = element("section", {hidden: true}, element("h2", {}, "Over time"),
      element("div", {class: "charts"}, ...this.charts.map(([chart]) => chart.node)), this.markers)
    this.spreadSection = element("section", {hidden: true}, element("h2", {}, "Per request"),
      element("div", {class: "charts three"}, this.latency.node, this.output.node, this.prompt.node))
    this.node = element("div", {}, this.timeSection, this.spreadSection)
  }

  /** update shows the charts of a RunDetail. */
  update({at, run, series, results, markers}) {
    const timeline = new Timeline(series, !hasEnded(run))
    for (const [chart, columnsOf] of this.charts) {
      chart.update(timeline.times, columnsOf(timeline), markers ?? [])
      setHidden(chart.node, hasEnded(run) && chart.data === null) // nothing more comes
    }
    setHidden(this.timeSection, this.charts.every(([chart]) => chart.data === null))

    this.markerRows.update((markers ?? []).slice(-mostMarkers), new Date(at))

    const {latency_histogram: latency, completion_tokens_histogram: output, prompt_tokens_histogram: prompt} = results ?? {}
    show(this.latency, latency, results?.latency_seconds)
    show(this.output, output, results?.completion_tokens_per_request)
    show(this.prompt, prompt, results?.prompt_tokens_per_request)
    setHidden(this.spreadSection, [latency, output, prompt].every(isEmpty))
  }

  /** destroy ends the charts. */
  destroy() {
    this.charts.forEach(([chart]) => chart.destroy())
  }
}

function show(figure, histogram, quantiles) {
  setHidden(figure.node, isEmpty(histogram))
  if (!isEmpty(histogram)) {
    figure.update(histogram, quantiles)
  }
}

function isEmpty(histogram) {
  return !histogram || !histogram.counts.some((n) => n > 0)
}

/** MarkerRow describes a time that is shaded in the charts. */
class MarkerRow {
  constructor() {
    this.text = element("span", {})
    this.node = element("li", {}, element("span", {class: "shade", "aria-hidden": "true"}), this.text)
  }

  update({from, to, text}, now) {
    const begin = new Date(from)
    const end = to ? ` to ${formatClockSeconds(new Date(to))}` : ""
    const day = begin.toDateString() === now.toDateString() ? "" : `${formatClock(begin, now).replace(/ [\d:]+$/, "")} `

    setText(this.text, `${day}${formatClockSeconds(begin)}${end}: ${text}`)
  }
}
