// One run: the answer, figures, charts, failures, a search, and its workers.

import {Actions} from "./actions.js"
import {Tile} from "./bus.js"
import {RunCharts} from "./runcharts.js"
import {RunDetails} from "./details.js"
import {element, setAttribute, setHidden, setText} from "./dom.js"
import {Causes, LatestFailures} from "./failures.js"
import {Find} from "./find.js"
import {formatAge, formatClock, formatCount, formatCountOf, formatDuration, formatRate, formatSeconds, formatShare} from "./format.js"
import {describeRun, formatLeft, hasEnded, nameRun, nameState, toneOf} from "./health.js"
import {Heading} from "./heading.js"
import {showProgress} from "./runs.js"
import {WorkerList} from "./workers.js"

/** RunView shows a run. */
export class RunView {
  constructor(id) {
    this.id = id
    this.title = id
    this.state = element("span", {class: "state"})
    this.bar = element("progress", {max: 1})
    this.share = element("span", {})
    this.synced = element("span", {class: "soft"})
    this.heading = new Heading(id, this.state)
    this.actions = new Actions(id)
    this.tiles = new RunTiles(() => this.causes.node.scrollIntoView())
    this.note = element("p", {class: "soft small", hidden: true})
    this.charts = new RunCharts()
    this.find = new Find(id)
    this.causes = new Causes((customID) => this.find.show(customID))
    this.failures = new LatestFailures((customID) => this.find.show(customID))
    this.workers = new WorkerList()
    this.workersSection = element("section", {}, element("h2", {}, "Workers"), this.workers.node)
    this.details = new RunDetails()

    this.body = element("div", {hidden: true},
      element("div", {class: "meter run-meter"}, element("p", {}, this.share, this.synced), this.bar),
      this.actions.node, this.tiles.node, this.note, this.causes.node, this.charts.node, this.failures.node, this.find.node,
      this.workersSection, this.details.node)
    this.node = element("article", {}, this.heading.node, this.body)
    this.heading.update({tone: "calm", text: "Loading…"})
  }

  /** update shows the run: from an overview until its detail has come. */
  update({overview, detail, gone, session, now}) {
    if (gone) {
      this.heading.update({tone: "calm", text: gone.message})
      setHidden(this.body, true)
      return
    }

    // The overview is as new as the detail, and comes first.
    const known = detail?.run.id === this.id ? detail : null
    const run = known?.run ?? overview?.runs.find((r) => r.id === this.id)
    if (!run) {
      return
    }

    this.#updateHeading(run, known, overview?.runs, now)
    this.actions.update(run, session.may_change)
    this.tiles.update(run, known, now)
    setText(this.note, known?.note ?? "")
    setHidden(this.note, !known?.note)
    if (known && known !== this.shown) {
      this.shown = known // charts are drawn when there is something new, and not each second
      this.charts.update(known)
      this.causes.update(known)
      this.failures.update(known)
    }

    if (known) {
      this.details.update(known)
    }
    this.#updateWorkers(run, overview, now)
    setHidden(this.body, false)
  }

  /** destroy ends what works for the view. */
  destroy() {
    this.charts.destroy()
    this.find.stop()
  }

  #updateHeading(run, known, runs, now) {
    const {done, durable, total} = run.progress
    const name = nameRun(run)
    const answer = describeRun(run, known?.results, now, runs)

    this.heading.update(answer)
    this.title = hasEnded(run) || total === 0 ? `${nameState(run)} · ${name}` : `${formatShare(done, total)} · ${name}`
    setText(this.heading.name, name === run.id ? name : `${name} (${run.id})`)
    setText(this.state, nameState(run))
    setAttribute(this.state, "class", `state ${toneOf(run)}`)
    setText(this.share, total > 0 ? `${formatCount(done)} of ${formatCount(total)} requests, ${formatShare(done, total)}` : "")
    setText(this.synced, durable < done ? `${formatCount(durable)} saved` : "")
    showProgress(this.bar, run)
  }

  #updateWorkers(run, overview, now) {
    const workers = hasEnded(run) ? [] : (overview?.workers ?? []).filter((w) => w.runs?.includes(run.id))
    setHidden(this.workersSection, workers.length === 0)
    this.workers.update(workers, now)
  }
}

/** RunTiles are the six figures of a run. */
class RunTiles {
  /**
   * @param onWhy is called when the viewer wants to see why requests failed
   */
  constructor(onWhy) {
    this.time = new Tile("Time left")
    this.tokens = new Tile("Output tokens/s")
    this.requests = new Tile("Requests/s")
    this.failed = new Tile("Failed")
    this.latency = new Tile("Median latency")
    this.load = new Tile("In flight")
    this.why = element("button", {type: "button", class: "link", hidden: true}, "What fails, and why")
    this.why.addEventListener("click", onWhy)
    this.failed.node.append(element("dd", {class: "note"}, this.why))
    this.node = element("dl", {class: "tiles"},
      ...[this.time, this.tokens, this.requests, this.failed, this.latency, this.load].map((t) => t.node))
  }

  update(run, known, now) {
    const {done, failed} = run.progress
    const latency = known?.results?.latency_seconds

    this.#updateTime(run, now)
    this.#updateRates(run, known)
    this.failed.update(formatCount(failed), failed > 0 ? `${formatShare(failed, done)} of those done` : "", failed > 0)
    setHidden(this.why, failed === 0)
    setHidden(this.latency.node, !latency)
    this.latency.update(latency ? formatSeconds(latency.p50) : "–", latency ? `99% within ${formatSeconds(latency.p99)}` : "")
    this.#updateLoad(run, known ?? undefined)
  }

  /** #updateLoad shows the requests in flight of a run that works, and the length of answers of one that has ended. */
  #updateLoad(run, {results, series} = {}) {
    const sizes = results?.completion_tokens_per_request
    if (hasEnded(run)) {
      setText(this.load.node.firstChild, "Median answer")
      setHidden(this.load.node, !sizes)
      this.load.update(sizes ? formatCountOf(Math.round(sizes.p50), "token") : "–", sizes ? `99% within ${formatCount(sizes.p99)}` : "")
      return
    }

    const [inFlight, limit] = [latestReading(series, "in_flight"), latestReading(series, "limit")]
    setText(this.load.node.firstChild, "In flight")
    setHidden(this.load.node, inFlight === null)
    this.load.update(inFlight === null ? "–" : formatCount(inFlight), limit === null ? "" : `limit ${formatCount(limit)}`)
  }

  #updateTime(run, now) {
    const {elapsed_s: elapsed} = run.progress
    if (hasEnded(run)) {
      setText(this.time.node.firstChild, "Took")
      this.time.update(formatDuration(elapsed), run.ended_at ? `ended ${formatClock(new Date(run.ended_at), now)}` : "")
      return
    }

    setText(this.time.node.firstChild, "Time left")
    this.time.update(formatLeft(run) || "–", `started ${formatAge(elapsed)}`)
  }

  /** #updateRates shows the latest rates of a run that works, and the means of one that has ended. */
  #updateRates(run, known) {
    const {results, series} = known ?? {}
    const mean = results?.output_tokens_per_sec ?? null
    const rate = latestRate(series, "completion_tokens")
    setHidden(this.tokens.node, mean === null && rate === null)
    const meanRequests = results?.throughput_requests_per_sec ?? null
    if (hasEnded(run)) {
      this.tokens.update(mean === null ? "–" : formatRate(mean), "mean")
      this.requests.update(meanRequests === null ? "–" : formatRate(meanRequests), "mean")
      return
    }

    this.tokens.update(rate === null ? "–" : formatRate(rate), mean === null ? "" : `mean ${formatRate(mean)}`)
    this.requests.update(run.progress.requests_per_s === null ? "–" : formatRate(run.progress.requests_per_s),
      meanRequests === null ? "" : `mean ${formatRate(meanRequests)}`)
  }
}

// nowLasts is the time in seconds of which figures are called those of now, as at the head.
const nowLasts = 30

/** latestOf returns the last whole intervals of a column, those of now; empty: there is none. */
function latestOf(series, name) {
  const intervals = Math.max(1, Math.round(nowLasts / (series?.interval_seconds ?? 1)))

  return (series?.[name] ?? []).slice(0, -1).slice(-intervals)
}

/** latestRate returns the rate of a column now; null: it is not known. */
function latestRate(series, name) {
  const last = latestOf(series, name)

  return last.length === 0 ? null : last.reduce((sum, n) => sum + n, 0) / (last.length * series.interval_seconds)
}

/** latestReading returns the last reading of a column now; null: there is none. */
function latestReading(series, name) {
  return latestOf(series, name).findLast((v) => v !== null) ?? null
}
