// Charts over time, drawn by uPlot, and what of a run's series they show.

import {element, setAttribute, setHidden, setText} from "./dom.js"
import {formatClock, formatClockSeconds, formatDay} from "./format.js"

/* global uPlot */

// mostPoints bounds the points of a chart: more are not seen in the width of a column, and single intervals
// jump, since workers send their results in batches.
const mostPoints = 180

const plotHeight = 176

// A line crosses a time without readings that is short, in pixels or in seconds: workers of older versions report
// their load every 3 s, and requests that take long leave intervals without one. In a longer one nothing was known.
const bridgePixels = 20
const bridgeSeconds = 15

/**
 * Timeline turns the series of a run into columns for charts. Several intervals are one point where
 * there are many. The last interval of a run that works is left out: it is not over yet.
 */
export class Timeline {
  constructor(series, working) {
    const all = series?.requests.length ?? 0
    const whole = working && all > 1 ? all - 1 : all

    this.series = series
    this.each = Math.max(1, Math.ceil(whole / mostPoints)) // intervals in a point
    this.seconds = this.each * (series?.interval_seconds ?? 1)
    this.length = working ? Math.floor(whole / this.each) : Math.ceil(whole / this.each)

    const start = series ? Date.parse(series.start) / 1000 : 0
    this.times = Array.from({length: this.length}, (_, i) => start + i * this.seconds)
  }

  /** rates returns a column of counts as rates a second. */
  rates(name) {
    return this.#group(name, (values, seconds) => sum(values) / seconds)
  }

  /** sums returns a column of counts. */
  sums(name) {
    return this.#group(name, (values) => sum(values))
  }

  /** means returns a column of readings: their mean; null where there is none. */
  means(name) {
    return this.#group(name, (values) => values.length === 0 ? null : sum(values) / values.length)
  }

  /** tops returns a column of readings: the greatest one; null where there is none. */
  tops(name) {
    return this.#group(name, (values) => values.length === 0 ? null : Math.max(...values))
  }

  #group(name, join) {
    const column = this.series?.[name] ?? []
    if (column.length === 0) {
      return null
    }

    return this.times.map((_, i) => {
      const part = column.slice(i * this.each, (i + 1) * this.each)
      return join(part.filter((v) => v !== null), part.length * this.series.interval_seconds)
    })
  }
}

function sum(values) {
  return values.reduce((a, b) => a + b, 0)
}

/** TimeChart is a figure with lines, or bars, over time. */
export class TimeChart {
  /**
   * @param title what is shown, with its unit
   * @param lines [{name, colour, kind}]: the colour is the name of one in page.css, and the kind line, dotted or bars
   * @param format formats a value for people
   * @param whole says that values are whole numbers
   */
  constructor(title, lines, format, whole = false) {
    this.title = title
    this.lines = lines
    this.whole = whole
    this.format = format
    this.data = null
    this.markers = []
    this.plot = null

    this.at = element("span", {class: "at", hidden: true})
    this.readings = lines.map((line) => new Reading(line, lines.length > 1))
    this.area = element("div", {class: "plot none", role: "img", "aria-label": title, "data-none": "Nothing yet"})
    this.node = element("figure", {class: "chart"},
      element("figcaption", {}, element("h3", {}, title), ...this.readings.map((r) => r.node)), this.at, this.area)

    this.resize = new ResizeObserver(() => this.#fit())
    this.resize.observe(this.area)
    this.dark = matchMedia("(prefers-color-scheme: dark)")
    this.recolour = () => this.#draw(true)
    this.dark.addEventListener("change", this.recolour)
  }

  /** update shows columns, one for each line, and shades the times of markers. */
  update(times, columns, markers) {
    const known = times.length >= 2 && columns.every((c) => c !== null) && columns.some((c) => c.some((v) => v !== null))
    this.data = known ? [times, ...columns] : null
    this.markers = markers
    this.#draw(false)
  }

  /** destroy ends the chart. */
  destroy() {
    this.resize.disconnect()
    this.dark.removeEventListener("change", this.recolour)
    this.plot?.destroy()
    this.plot = null
  }

  #draw(fromNothing) {
    this.area.classList.toggle("none", !this.data)
    if (fromNothing || !this.data) {
      this.plot?.destroy()
      this.plot = null
    }
    if (!this.data) {
      this.#read(null)
      setAttribute(this.area, "aria-label", `${this.title}: nothing yet`)
      return
    }

    if (!this.plot) {
      this.plot = new uPlot(this.#options(), this.data, this.area)
    } else if (this.#isZoomed()) {
      this.plot.setData(this.data, false)
      this.plot.redraw()
    } else {
      this.plot.setData(this.data)
    }

    this.#read(this.plot.cursor.idx)
    setAttribute(this.area, "aria-label", this.#describe())
  }

  /** #isZoomed reports whether the viewer has chosen a part of the time. */
  #isZoomed() {
    const {min, max} = this.plot.scales.x
    const times = this.plot.data[0]

    return min > times[0] || max < times[times.length - 1]
  }

  #fit() {
    const width = this.area.clientWidth
    if (this.plot && width > 0 && width !== this.plot.width) {
      this.plot.setSize({width, height: plotHeight})
    }
  }

  #options() {
    const colours = getComputedStyle(document.documentElement)
    const colour = (name) => colours.getPropertyValue(`--${name}`)
    const axis = {
      stroke: colour("soft"),
      font: "12px system-ui, sans-serif",
      grid: {stroke: colour("rule"), width: 1},
      ticks: {show: false},
    }

    return {
      width: Math.max(120, this.area.clientWidth),
      height: plotHeight,
      padding: [8, 8, 0, 0],
      legend: {show: false},
      cursor: {sync: {key: "run"}, points: {size: 7}, y: false},
      scales: {x: {time: true}, y: {range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1]}},
      axes: [
        {...axis, space: 80, size: 26, gap: 5, values: formatTicks},
        {...axis, space: 36, size: 48, gap: 6, values: (u, ticks) => ticks.map((v) => this.whole && !Number.isInteger(v) ? "" : formatTick(v))},
      ],
      series: [{}, ...this.lines.map((line) => drawLine(line, colour))],
      hooks: {
        drawClear: [(u) => shade(u, this.markers, colour("gap"))],
        setCursor: [(u) => this.#read(u.cursor.idx)],
      },
    }
  }

  /** #read shows the values at a point under the cursor, or the latest ones. */
  #read(index) {
    const chosen = index !== null && index !== undefined && this.data && index < this.data[0].length
    setHidden(this.at, !chosen)
    setText(this.at, chosen ? `${formatClockSeconds(new Date(1000 * this.data[0][index]))}` : "")
    this.readings.forEach((reading, i) => {
      const column = this.data?.[i + 1]
      const value = column ? chosen ? column[index] : latest(column) : null
      reading.update(value === null || value === undefined ? "–" : this.format(value))
    })
  }

  /** #describe says in words what the chart shows. */
  #describe() {
    const [times] = this.data
    const from = new Date(1000 * times[0])
    const to = new Date(1000 * times[times.length - 1])
    const parts = this.lines.map((line, i) => {
      const values = this.data[i + 1].filter((v) => v !== null)
      const most = this.format(values.reduce((a, b) => Math.max(a, b), 0))
      return `${line.name}: latest ${values.length > 0 ? this.format(values[values.length - 1]) : "unknown"}, most ${most}`
    })

    return `${this.title}, from ${formatClock(from, to)} to ${formatClock(to, to)}. ${parts.join("; ")}.`
  }
}

/** Reading is the value of a line in the caption of its chart. */
class Reading {
  constructor(line, named) {
    this.value = element("b", {})
    this.node = element("span", {class: "reading"},
      element("span", {class: `swatch ${line.kind === "dotted" ? "soft" : line.colour}`, "aria-hidden": "true"}),
      named ? `${line.name} ` : null, this.value)
  }

  update(text) {
    setText(this.value, text)
  }
}

function drawLine({colour: name, kind}, colour) {
  switch (kind) {
  case "bars":
    return {fill: colour(name), stroke: colour(name), width: 0, paths: uPlot.paths.bars({size: [0.8, 12]}), points: {show: false}}
  case "dotted":
    return {stroke: colour("soft"), width: 1.5, dash: [3, 4], paths: uPlot.paths.stepped({align: 1}), points: {show: false}, gaps: findGaps}
  default:
    return {stroke: colour(name), width: 1.75, points: {show: false}, gaps: findGaps}
  }
}

/** findGaps returns the gaps of a line that are to be seen, each from one pixel to another. */
function findGaps(u, line, first, last, gaps) {
  const seconds = (u.scales.x.max - u.scales.x.min) / u.bbox.width // of a pixel

  return gaps.filter(([from, to]) => to - from > Math.max(bridgePixels * devicePixelRatio, bridgeSeconds / seconds))
}

/** shade marks the times of markers behind the lines. */
function shade(u, markers, colour) {
  const {left, top, width, height} = u.bbox
  const end = u.scales.x.max

  u.ctx.save()
  u.ctx.fillStyle = colour
  for (const {from, to} of markers) {
    const begins = Math.max(left, u.valToPos(Date.parse(from) / 1000, "x", true))
    const ends = Math.min(left + width, u.valToPos(to ? Date.parse(to) / 1000 : end, "x", true))
    if (ends >= left && begins <= left + width) {
      u.ctx.fillRect(begins, top, Math.max(2, ends - begins), height)
    }
  }
  u.ctx.restore()
}

/** formatTicks names the times below a chart, with seconds only where a minute has several. */
function formatTicks(u, ticks, axis, space, step) {
  let day = ""

  return ticks.map((s) => {
    const at = new Date(1000 * s)
    if (step < 60) {
      return formatClockSeconds(at)
    }

    const name = formatDay(at)
    const isNew = day !== "" && name !== day
    day = name

    return step >= 86400 || isNew ? name : formatClock(at, at)
  })
}

const compact = new Intl.NumberFormat("en-US", {notation: "compact", maximumFractionDigits: 2})

function formatTick(value) {
  return compact.format(value)
}

function latest(column) {
  for (let i = column.length - 1; i >= 0; i--) {
    if (column[i] !== null) {
      return column[i]
    }
  }

  return null
}
