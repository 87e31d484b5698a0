// The answers of the page in sentences: is it healthy, when will it be done, what fails and why.

import {
  formatAge, formatClock, formatClockSeconds, formatCount, formatCountOf, formatDuration, formatInterval, formatShare,
  joinFew,
} from "./format.js"

// manyFailures is the share of failed requests from which on a run is said to fail. Single requests that are
// too long for a model are usual in large inputs.
const manyFailures = 0.01

const ended = new Set(["completed", "cancelled", "expired", "failed"])

/** hasEnded reports whether nothing will change about a run by itself. */
export function hasEnded(run) {
  return ended.has(run.state)
}

/** nameRun names a run for people. */
export function nameRun(run) {
  return run.label || run.input_name || run.id
}

// mostNameLength bounds the name of a run in a sentence, in characters.
const mostNameLength = 40

/** nameShortly names a run in a sentence. */
function nameShortly(run) {
  const name = [...nameRun(run)]

  return name.length > mostNameLength ? `${name.slice(0, mostNameLength - 1).join("")}…` : name.join("")
}

const stateNames = {
  validating: "Reading the input",
  in_progress: "In progress",
  paused: "Paused",
  finalizing: "Writing the files",
  completed: "Completed",
  cancelling: "Cancelling",
  cancelled: "Cancelled",
  expired: "Expired",
  failed: "Refused",
}

/** nameState names the state of a run in words. */
export function nameState(run) {
  if (run.state === "in_progress" && run.problem) {
    return "Stuck"
  }

  return stateNames[run.state] ?? run.state
}

/** toneOf returns how a run looks: good, bad, busy, or calm. */
export function toneOf(run) {
  if (run.state === "failed" || run.problem && !hasEnded(run) && run.state !== "paused") {
    return "bad"
  }
  if (run.state === "in_progress" || run.state === "finalizing" || run.state === "validating") {
    return "busy"
  }

  return run.state === "completed" ? "good" : "calm"
}

/** formatLeft formats the time that a run still takes; empty: it is not known. */
export function formatLeft(run) {
  const remaining = run.progress.remaining_s

  return remaining ? formatInterval(remaining.low, remaining.high) : ""
}

/** describeBus says whether all runs and workers are well: {tone, text}. */
export function describeBus(overview) {
  const {runs, workers} = overview
  const working = runs.filter((r) => !hasEnded(r) && r.state !== "paused")
  const stuck = working.filter((r) => r.problem)
  const broken = workers.filter((w) => w.problem || !w.ready)
  const failing = working.filter((r) => r.progress.failed > manyFailures * r.progress.done)

  if (overview.problem) {
    return {tone: "bad", text: sentence(overview.problem)}
  }
  if (stuck.length === 1) {
    return {tone: "bad", text: `${nameShortly(stuck[0])} is stuck: ${endSentence(stuck[0].problem)}`}
  }
  if (stuck.length > 1) {
    return {tone: "bad", text: `${formatCount(stuck.length)} runs are stuck. ${nameShortly(stuck[0])}: ${endSentence(stuck[0].problem)}`}
  }

  const has = joinClauses(countWork(working, runs), countWorkers(workers, overview))
  if (broken.length > 0) {
    const [first] = broken
    const why = first.problem ? `: ${first.problem}` : " is not ready"
    const others = broken.length > 1 ? ` ${formatCountOf(broken.length - 1, "other worker")} too.` : ""
    return {tone: "bad", text: `${has}. ${sentence(`Worker ${first.name}${why}`)}${others}`}
  }
  if (failing.length > 0) {
    const [{progress}] = failing
    return {
      tone: "bad",
      text: `${has}. ${formatShare(progress.failed, progress.done)} of the requests of ${nameShortly(failing[0])} have failed.`,
    }
  }
  if (overview.bus?.warnings?.length > 0) {
    return {tone: "bad", text: `${has}. ${sentence(overview.bus.warnings[0])}`}
  }
  if (working.length > 0) {
    return {tone: "good", text: `${has}, all well.`}
  }

  return {tone: "calm", text: `${has}.`}
}

function countWork(working, runs) {
  if (working.length > 0) {
    return `${formatCountOf(working.length, "run")} in progress`
  }

  const paused = runs.filter((r) => r.state === "paused").length

  return paused > 0 ? `Nothing is running, ${formatCountOf(paused, "run")} paused` : "Nothing is running"
}

/** countWorkers counts the workers. A key that sees only its own runs does not see any. */
function countWorkers(workers, overview) {
  if (!overview.bus) {
    return ""
  }

  return workers.length === 0 ? "no workers" : formatCountOf(workers.length, "worker")
}

function joinClauses(...clauses) {
  return clauses.filter((c) => c !== "").join(", ")
}

/**
 * describeRun answers for one run: {tone, text, done}, where done says when, or is empty. Among all runs are those
 * that may be before it.
 */
export function describeRun(run, results, now, runs = []) {
  const before = findRunBefore(run, runs)
  if (before) {
    return {tone: "calm", text: `Waiting: ${nameShortly(before)} has a higher priority, so workers take its requests first.`, done: ""}
  }

  return {tone: judgeRun(run), text: describeState(run, results, now), done: describeEnd(run, now)}
}

/** findRunBefore returns the run that has the workers of one that stands still; undefined: there is none. */
function findRunBefore(run, runs) {
  const works = (r) => r.state === "in_progress" && !r.problem
  if (!works(run) || run.progress.requests_per_s > 0) {
    return undefined
  }

  return runs.find((r) => works(r) && r.priority > run.priority && r.progress.requests_per_s > 0 &&
    r.models.some((m) => run.models.includes(m)))
}

function judgeRun(run) {
  const tone = toneOf(run)
  if (tone === "busy" || tone === "good") {
    return run.progress.failed > manyFailures * run.progress.done ? "bad" : "good"
  }

  return tone
}

function describeState(run, results, now) {
  const {done, failed, total} = run.progress
  if (hasEnded(run)) {
    return describeOutcome(run, results, now)
  }
  if (run.state === "paused") {
    const why = run.problem ? ` ${sentence(run.problem)}` : ""
    return `Paused with ${formatCountOf(total - done, "request")} left.${why}`
  }
  if (run.problem) {
    return `Stuck: ${endSentence(run.problem)}`
  }

  switch (run.state) {
  case "validating":
    return "The input is being read and checked."
  case "finalizing":
    return "All requests are done. The output files are being written."
  case "cancelling":
    return "Being cancelled: requests at the model servers are finished first."
  }

  if (failed > manyFailures * done) {
    return `Working, but ${formatShare(failed, done)} of the requests fail${describeCause(run, results)}.`
  }
  if (done === 0) {
    return "Started. No request is done yet."
  }

  return failed === 0 ? "Healthy. Nothing has failed." : `Healthy. ${formatCountOf(failed, "request")} failed${describeCause(run, results)}.`
}

function describeOutcome(run, results, now) {
  const {done, failed, total, elapsed_s: elapsed} = run.progress
  const at = run.ended_at ? ` at ${formatClock(new Date(run.ended_at), now)}` : ""
  const took = elapsed > 0 ? ` after ${formatDuration(elapsed)}` : ""
  const start = `${nameState(run)}${at}${took}`
  if (run.state === "failed") {
    return `${nameState(run)}${at}: ${endSentence(run.problem || "the reason is not known").replace(/^refused: /, "")}`
  }

  const counts = failed === 0 ? `all ${formatCountOf(done, "request")} answered`
    : `${formatCount(done - failed)} answered, ${formatCount(failed)} failed (${formatShare(failed, done)})${describeCause(run, results)}`
  const text = run.state === "completed" ? counts : `${counts}, ${formatCount(total - done)} not done`

  return `${start}: ${text}.`
}

/** describeCause names the cause of most failures. */
function describeCause(run, results) {
  const causes = Object.entries(results?.failures ?? run.failures ?? {}).sort((a, b) => b[1] - a[1])
  if (causes.length === 0) {
    return ""
  }

  return causes.length === 1 ? `, all with ${nameCause(causes[0][0])}` : `, mostly with ${nameCause(causes[0][0])}`
}

/** nameCause names the cause of a failure: an error code, or an HTTP status, as http_400. */
export function nameCause(cause) {
  return cause.replace(/^(?:http_)?(\d{3})$/, "HTTP $1")
}

/** describeEnd says when a run that works will be done; empty: it does not work. */
function describeEnd(run, now) {
  const remaining = run.progress.remaining_s
  if (run.state !== "in_progress" || run.problem) {
    return ""
  }
  if (!remaining) {
    return "The time left is not known yet."
  }

  const end = (s) => formatClock(new Date(now.getTime() + 1000 * s), now)
  const [first, last] = [end(remaining.low), end(remaining.high)]
  const clock = first === last ? `at about ${last}` : `between ${first} and ${last}`

  return `Done in ${formatLeft(run)}, ${clock}.`
}

/** describeHeard says when a worker was last heard: {text, late}. One announces itself every 3 s. */
export function describeHeard(worker, now) {
  const age = (now - new Date(worker.heard_at)) / 1000

  return {text: formatAge(age), late: age >= 8}
}

/** describeDeparture says when a worker leaves, and why; empty: it stays. */
export function describeDeparture(worker, now) {
  if (!worker.departure) {
    return ""
  }

  const deadline = new Date(worker.departure.deadline)
  const left = (deadline - now) / 1000
  const when = left > 0 ? `Leaving in ${formatDuration(left)}, by ${formatClockSeconds(deadline)}`
    : `Leaving: its time ended at ${formatClockSeconds(deadline)}`

  return endSentence(worker.departure.reason ? `${when}: ${worker.departure.reason}` : when)
}

/** describeModels names the models of a run or a worker. */
export function describeModels(models, most = 2) {
  if (!models) {
    return "any model"
  }

  return joinFew(models.map((m) => m || "the default model"), most)
}

/** sentence makes a sentence of a problem, which is a clause: with a capital and a full stop. */
export function sentence(text) {
  return text === "" ? "" : endSentence(text.charAt(0).toUpperCase() + text.slice(1))
}

function endSentence(text) {
  return /[.!?]$/.test(text) ? text : `${text}.`
}
