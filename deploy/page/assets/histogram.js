// Histograms: how a quantity is spread over the requests.

import {element, setAttribute, setText, svgElement} from "./dom.js"
import {formatCountOf, formatShare} from "./format.js"

// mostBars bounds the bars: buckets that are next to each other are joined beyond.
const mostBars = 60

const width = 400
const height = 100

/** Histogram is a figure with a bar for each bucket. */
export class Histogram {
  /**
   * @param title what is shown
   * @param format formats a value for people
   */
  constructor(title, format) {
    this.title = title
    this.format = format
    this.shown = "" // what is drawn, so that nothing is drawn twice
    this.bars = svgElement("g")
    this.reading = element("span", {class: "reading"})
    this.ends = [0, 1, 2].map(() => element("span", {}))
    this.picture = svgElement("svg", {viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": title},
      svgElement("line", {x1: 0, x2: width, y1: height, y2: height, "vector-effect": "non-scaling-stroke"}), this.bars)
    this.node = element("figure", {class: "chart histogram"},
      element("figcaption", {}, element("h3", {}, title), this.reading),
      this.picture, element("div", {class: "scale", "aria-hidden": "true"}, ...this.ends))

    this.bars.addEventListener("pointerover", (event) => this.#read(event.target.closest(".column")?.dataset.text))
    this.bars.addEventListener("pointerleave", () => this.#read(null))
  }

  /** update shows a histogram, {bounds, counts}, and its quantiles, {p50, p90, p99, max}, if they are known. */
  update(histogram, quantiles) {
    const shown = JSON.stringify([histogram, quantiles])
    if (shown === this.shown) {
      return
    }

    this.shown = shown
    this.summary = quantiles
      ? `p50 ${this.format(quantiles.p50)} · p90 ${this.format(quantiles.p90)} · p99 ${this.format(quantiles.p99)}`
      : ""
    this.#draw(joinBuckets(histogram))
    this.#read(null)
    setAttribute(this.picture, "aria-label", `Histogram. ${this.title}: ${this.summary || "quantiles unknown"}`)
  }

  #draw(buckets) {
    const total = buckets.reduce((sum, b) => sum + b.count, 0)
    const most = buckets.reduce((top, b) => Math.max(top, b.count), 1)
    const step = width / buckets.length

    this.bars.replaceChildren(...buckets.map((bucket, i) => {
      const tall = bucket.count === 0 ? 0 : Math.max(1, height * bucket.count / most)
      const range = `${this.format(bucket.from)} to ${this.format(bucket.to)}`

      return svgElement("g", {
        class: "column",
        "data-text": `${range}: ${formatCountOf(bucket.count, "request")}, ${formatShare(bucket.count, total)}`,
      },
      svgElement("rect", {class: "value", x: i * step + step * 0.08, y: height - tall, width: step * 0.84, height: tall}),
      svgElement("rect", {class: "target", x: i * step, y: 0, width: step, height}))
    }))

    const middle = buckets[Math.floor((buckets.length - 1) / 2)]
    const ends = [buckets[0]?.from, middle?.to, buckets.at(-1)?.to]
    this.ends.forEach((node, i) => setText(node, ends[i] === undefined ? "" : this.format(ends[i])))
  }

  #read(text) {
    setText(this.reading, text ?? this.summary)
  }
}

/**
 * joinBuckets returns the buckets from the first to the last one with a count, at most mostBars, as
 * {from, to, count}.
 */
function joinBuckets({bounds, counts}) {
  const first = counts.findIndex((n) => n > 0)
  if (first < 0) {
    return []
  }

  const last = counts.findLastIndex((n) => n > 0)
  const each = Math.ceil((last - first + 1) / mostBars)
  const buckets = []
  for (let i = first; i <= last; i += each) {
    const end = Math.min(i + each, last + 1)
    buckets.push({
      from: i > 0 ? bounds[i - 1] : 0,
      to: bounds[Math.min(end, bounds.length) - 1],
      count: counts.slice(i, end).reduce((sum, n) => sum + n, 0),
    })
  }

  return buckets
}
