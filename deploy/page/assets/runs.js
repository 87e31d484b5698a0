// The runs: those that work first, then those that have ended.

import {element, KeyedList, setAttribute, setHidden, setText} from "./dom.js"
import {formatAge, formatClock, formatCount, formatDuration, formatRate, formatShare, formatTime} from "./format.js"
import {describeBus, describeModels, formatLeft, hasEnded, nameRun, nameState, sentence, toneOf} from "./health.js"
import {Heading} from "./heading.js"

/** RunsView shows all runs. */
export class RunsView {
  constructor() {
    this.title = "Runs"
    this.heading = new Heading("Runs")
    this.active = new Section("Active", "active")
    this.ended = new Section("Ended", "ended")
    this.empty = element("p", {class: "empty", hidden: true},
      "There is no run on this bus. ", element("code", {}, "promptmill submit FILE"), " adds one, and ",
      element("code", {}, "promptmill run FILE --page HOST:PORT"), " runs a file and shows it here.")
    this.node = element("div", {}, this.heading.node, this.empty, this.active.node, this.ended.node)
  }

  /** update shows the runs of an overview. */
  update({overview, now}) {
    if (!overview) {
      return
    }

    const answer = describeBus(overview)
    this.heading.update(answer)
    this.title = answer.text
    setHidden(this.empty, overview.runs.length > 0)
    this.active.update(overview.runs.filter((r) => !hasEnded(r)), now)
    this.ended.update(overview.runs.filter(hasEnded), now)
  }
}

/** Section is a list of runs under a heading. */
class Section {
  constructor(title, id) {
    this.count = element("span", {class: "count"})
    this.list = element("ul", {class: "cards", "aria-labelledby": id})
    this.node = element("section", {hidden: true}, element("h2", {id}, `${title} `, this.count), this.list)
    this.rows = new KeyedList(this.list, (run) => run.id, (run) => new RunCard(run))
  }

  update(runs, now) {
    setHidden(this.node, runs.length === 0)
    setText(this.count, formatCount(runs.length))
    this.rows.update(runs, now)
  }
}

/** RunCard is a run in the list. */
class RunCard {
  constructor(run) {
    this.name = element("a", {href: `#/runs/${encodeURIComponent(run.id)}`})
    this.id = element("span", {})
    this.models = element("span", {})
    this.age = element("span", {})
    this.state = element("span", {class: "state"})
    this.share = element("span", {})
    this.bar = element("progress", {max: 1})
    this.rate = new Figure()
    this.left = new Figure()
    this.failed = new Figure()
    this.problem = element("p", {class: "problem", hidden: true})
    this.node = element("li", {class: "card run"},
      element("div", {}, element("h3", {}, this.name), element("p", {class: "about"}, this.id, this.models, this.age)),
      element("div", {class: "meter"}, element("p", {}, this.state, this.share), this.bar),
      element("dl", {class: "figures"}, this.rate.node, this.left.node, this.failed.node),
      this.problem)
  }

  update(run, now) {
    const name = nameRun(run)
    const {done, failed, total} = run.progress

    setText(this.name, name)
    setText(this.id, run.id)
    setHidden(this.id, name === run.id)
    setText(this.models, describeModels(run.models))
    setText(this.age, `started ${formatAge((now - new Date(run.created_at)) / 1000)}`)
    setAttribute(this.age, "title", formatTime(new Date(run.created_at)))
    setText(this.state, nameState(run))
    setAttribute(this.state, "class", `state ${toneOf(run)}`)
    setText(this.share, total > 0 ? `${formatShare(done, total)} of ${formatCount(total)}` : "")
    showProgress(this.bar, run)
    setHidden(this.bar, run.state === "completed")

    this.#updateFigures(run, now)
    this.failed.update("failed", formatCount(failed), failed > 0)
    setText(this.problem, sentence(run.problem ?? ""))
    setHidden(this.problem, !run.problem)
  }

  #updateFigures(run, now) {
    const {done, requests_per_s: rate, elapsed_s: elapsed} = run.progress
    if (!hasEnded(run)) {
      this.rate.update("requests/s", rate === null ? "–" : formatRate(rate))
      this.left.update("left", formatLeft(run) || "–")
      return
    }

    this.rate.update("answered", formatCount(done - run.progress.failed))
    this.left.update(run.ended_at ? `ended ${formatClock(new Date(run.ended_at), now)}` : "took", formatDuration(elapsed))
  }
}

/** Figure is a number with its name below. */
class Figure {
  constructor() {
    this.name = element("dt", {})
    this.value = element("dd", {})
    this.node = element("div", {}, this.name, this.value)
  }

  update(name, value, bad = false) {
    setText(this.name, name)
    setText(this.value, value)
    setAttribute(this.value, "class", bad ? "bad-text" : null)
  }
}

/** showProgress shows the progress of a run in a progress element. */
export function showProgress(bar, run) {
  const {done, total} = run.progress
  const share = total > 0 ? done / total : 0

  setAttribute(bar, "value", share.toFixed(4))
  setAttribute(bar, "aria-label", `Progress of ${nameRun(run)}`)
  setAttribute(bar, "class", hasEnded(run) ? (run.state === "completed" ? "good" : "calm") : run.state === "paused" ? "calm" : null)
}
