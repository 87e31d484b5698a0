// All else about a run, folded away.

import {element, setText} from "./dom.js"
import {formatBytes, formatCount, formatCountOf, formatShare, formatTime} from "./format.js"
import {describeModels} from "./health.js"

/** RunDetails lists what is known of a run besides its figures, and the commands for it. */
export class RunDetails {
  constructor() {
    this.shown = ""
    this.list = element("dl", {class: "details"})
    this.commands = element("div", {class: "commands"})
    this.node = element("details", {}, element("summary", {}, "Details and commands"), this.list, this.commands)
  }

  /** update shows the details of a RunDetail, if they have changed: a selection of text stays. */
  update(detail) {
    const rows = listDetails(detail)
    const commands = detail.commands ?? []
    const shown = JSON.stringify([rows, commands])
    if (shown === this.shown) {
      return
    }

    this.shown = shown
    this.list.replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]))
    this.commands.replaceChildren(...commands.map(({does, line}) =>
      element("div", {}, element("p", {class: "small soft"}, does), element("pre", {tabindex: "0"}, line))))
  }
}

/** listDetails returns names and values. What is not known is left out. */
function listDetails({run, results, input_files: files, input_bytes: bytes, output, max_tokens: maxTokens, fail_if: failIf, workers}) {
  const rows = [
    ["Run", run.id],
    ["Label", run.label],
    ["Input", (files ?? []).join(", ")],
    ["Size of the input", bytes > 0 ? formatBytes(bytes) : ""],
    ["Models", describeModels(run.models, 20)],
    ["Output", output],
    ["Collected by", run.collector ? run.collector.host : ""],
    ["Started", formatTime(new Date(run.created_at))],
    ["Ended", run.ended_at ? formatTime(new Date(run.ended_at)) : ""],
    ["Expires", run.expires_at ? formatTime(new Date(run.expires_at)) : ""],
    ["Priority", run.priority ? formatCount(run.priority) : ""],
    ["Stops at", maxTokens > 0 ? formatCountOf(maxTokens, "token") : ""],
    ["Stops if", (failIf ?? []).join(", ")],
    ["Tokens", describeTokens(run, results)],
    ["Wasted work", describeWaste(results?.wasted)],
    ["Workers that took part", describeWorkers(workers)],
  ]

  return rows.filter(([, value]) => value)
}

function describeTokens({progress}, results) {
  const prompt = results?.prompt_tokens ?? progress.prompt_tokens
  const output = results?.completion_tokens ?? progress.completion_tokens

  return prompt + output > 0 ? `${formatCount(prompt)} of prompts, ${formatCount(output)} of answers` : ""
}

function describeWaste(wasted) {
  if (!wasted) {
    return ""
  }

  const parts = []
  if (wasted.token_share > 0) {
    parts.push(`${formatShare(wasted.token_share, 1)} of the generated tokens thrown away`)
  }
  if (wasted.discarded_attempts > 0) {
    parts.push(`${formatCountOf(wasted.discarded_attempts, "attempt")} thrown away`)
  }
  if (wasted.repeated_requests > 0) {
    parts.push(`${formatCountOf(wasted.repeated_requests, "request")} run again after a crash`)
  }
  if (wasted.cut_off_answers > 0) {
    parts.push(`${formatCountOf(wasted.cut_off_answers, "answer")} cut off at the limit of tokens`)
  }

  return parts.length > 0 ? parts.join(", ") : "none"
}

function describeWorkers(workers) {
  return (workers ?? []).map((w) => {
    const requests = w.requests !== null && w.requests !== undefined ? [formatCountOf(w.requests, "request")] : []
    const cards = w.gpus?.length > 0 ? [w.gpus.map((g) => g.name).join(", ")] : []
    const about = [w.platform, ...requests, ...cards].filter((t) => t)

    return `${w.label || w.name}${about.length > 0 ? ` (${about.join(", ")})` : ""}`
  }).join("; ")
}
