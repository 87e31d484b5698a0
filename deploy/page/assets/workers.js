// The workers: what each serves, how much it does, and its graphics cards.

import {element, KeyedList, setAttribute, setHidden, setText} from "./dom.js"
import {formatAge, formatBytes, formatCount, formatCountOf, formatRate, formatSeconds, formatTime, nbsp} from "./format.js"
import {describeDeparture, describeHeard, describeModels, sentence} from "./health.js"
import {Heading} from "./heading.js"

/** WorkersView shows all workers. */
export class WorkersView {
  constructor() {
    this.title = "Workers"
    this.heading = new Heading("Workers")
    this.list = new WorkerList()
    this.empty = element("p", {class: "empty", hidden: true},
      element("code", {}, "promptmill worker"), " on a machine with a model server adds one.")
    this.hidden = element("p", {class: "empty", hidden: true}, "Your key sees its own runs, and no workers.")
    this.node = element("div", {}, this.heading.node, this.empty, this.hidden, this.list.node)
  }

  /** update shows the workers of an overview. */
  update({overview, session, now}) {
    if (!overview) {
      return
    }

    const answer = session.own_only ? {tone: "calm", text: "Not shown"} : describeWorkers(overview.workers)
    this.heading.update(answer)
    this.title = answer.text
    setHidden(this.empty, session.own_only || overview.workers.length > 0)
    setHidden(this.hidden, !session.own_only)
    this.list.update(overview.workers, now)
  }
}

/** describeWorkers says whether all workers are well: {tone, text}. */
export function describeWorkers(workers) {
  if (workers.length === 0) {
    return {tone: "calm", text: "There are no workers."}
  }

  const broken = workers.filter((w) => w.problem || !w.ready)
  const rate = workers.reduce((sum, w) => sum + w.requests_per_s, 0)
  const inFlight = workers.reduce((sum, w) => sum + w.in_flight, 0)
  const work = `${formatCountOf(inFlight, "request")} in flight, ${formatRate(rate)} requests/s`
  if (broken.length === 0) {
    const leaving = workers.filter((w) => w.departure).length
    const are = leaving === 0 ? "all ready" : leaving === workers.length ? "leaving" : `${formatCount(leaving)} of them leaving`
    return {tone: leaving === 0 ? "good" : "calm", text: `${formatCountOf(workers.length, "worker")}, ${are}: ${work}.`}
  }

  const names = broken.slice(0, 3).map((w) => w.name).join(", ")

  return {
    tone: "bad",
    text: `${formatCount(broken.length)} of ${formatCountOf(workers.length, "worker")} ${broken.length === 1 ? "has" : "have"} a problem: ${names}.`,
  }
}

/** WorkerList is a list of workers as cards. */
export class WorkerList {
  constructor() {
    this.node = element("ul", {class: "cards workers", "aria-label": "Workers"})
    this.rows = new KeyedList(this.node, (worker) => worker.id || worker.name, () => new WorkerCard())
  }

  update(workers, now) {
    this.rows.update(workers, now)
  }
}

/** WorkerCard is a worker in the list. */
class WorkerCard {
  constructor() {
    this.name = element("h3", {})
    this.heard = element("span", {class: "small"})
    this.server = element("p", {class: "about"})
    this.models = element("p", {class: "small"})
    this.problem = element("p", {class: "problem", hidden: true})
    this.departure = element("p", {class: "departure", hidden: true})
    this.inFlight = element("dd", {})
    this.rate = element("dd", {})
    this.latency = element("dd", {})
    this.cards = element("ul", {class: "gpus", hidden: true, "aria-label": "Graphics cards"})
    this.cardRows = new KeyedList(this.cards, (gpu) => gpu.uuid || gpu.index, () => new GPURow())
    this.node = element("li", {class: "card worker"},
      element("header", {}, this.name, this.heard),
      element("div", {}, this.server, this.models),
      this.problem,
      this.departure,
      element("dl", {class: "facts"},
        element("div", {}, element("dt", {}, "in flight"), this.inFlight),
        element("div", {}, element("dt", {}, "requests/s"), this.rate),
        element("div", {}, element("dt", {}, "per request"), this.latency)),
      this.cards)
  }

  update(worker, now) {
    const {text, late} = describeHeard(worker, now)
    const problem = worker.problem || (worker.ready ? "" : "the model server does not answer")

    setText(this.name, worker.name)
    setText(this.heard, `heard ${text}`)
    setAttribute(this.heard, "class", late ? "small late" : "small soft")
    setAttribute(this.heard, "title", worker.since ? `Started ${formatTime(new Date(worker.since))}` : null)
    this.#updateServer(worker, now)
    setText(this.problem, sentence(problem))
    setHidden(this.problem, problem === "")
    setText(this.departure, describeDeparture(worker, now))
    setHidden(this.departure, !worker.departure)

    setText(this.inFlight, worker.limit > 0 ? `${formatCount(worker.in_flight)} of ${formatCount(worker.limit)}` : formatCount(worker.in_flight))
    setText(this.rate, formatRate(worker.requests_per_s))
    setText(this.latency, worker.latency_s > 0 ? formatSeconds(worker.latency_s) : "–")

    const gpus = worker.gpus ?? []
    setHidden(this.cards, gpus.length === 0)
    this.cardRows.update(gpus)
  }

  #updateServer(worker, now) {
    const host = worker.host && worker.host !== worker.name ? [`host ${worker.host}`] : []
    const engines = worker.engines > 1 ? [formatCountOf(worker.engines, "engine")] : []
    const since = worker.since ? [`started ${formatAge((now - new Date(worker.since)) / 1000)}`] : []

    setText(this.server, [worker.platform || "unknown model server", ...engines, worker.server, ...host, ...since].filter((t) => t).join(" · "))
    setText(this.models, `Serves ${describeModels(worker.models, 4)}`)
  }
}

/** GPURow is a graphics card. What the driver does not report is left out. */
class GPURow {
  constructor() {
    this.name = element("span", {})
    this.readings = element("span", {class: "soft"})
    this.bar = element("progress", {max: 100})
    this.node = element("li", {class: "gpu"}, element("p", {}, this.name, this.readings), this.bar)
  }

  update(gpu) {
    const readings = []
    const {utilization_percent: use, memory_used_bytes: used, memory_bytes: memory, power_watts: power, temperature_c: heat} = gpu
    if (isKnown(use)) {
      readings.push(`${formatCount(use)}%${nbsp}busy`)
    }
    if (isKnown(used) && memory > 0) {
      readings.push(`${formatBytes(used)} of ${formatBytes(memory)}`)
    }
    if (isKnown(power)) {
      readings.push(`${formatCount(power)}${nbsp}W`)
    }
    if (isKnown(heat)) {
      readings.push(`${formatCount(heat)}${nbsp}°C`)
    }

    setText(this.name, `GPU ${gpu.index}: ${gpu.name}`)
    setText(this.readings, readings.join(" · "))
    setHidden(this.bar, !isKnown(use))
    setAttribute(this.bar, "value", isKnown(use) ? use : 0)
    setAttribute(this.bar, "aria-label", `Use of GPU ${gpu.index}`)
  }
}

function isKnown(value) {
  return value !== null && value !== undefined
}
