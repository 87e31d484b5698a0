// The search for a request by its custom_id.

import {element, setHidden, setText} from "./dom.js"
import {findRequest, Refusal} from "./api.js"
import {formatBytes, formatShare} from "./format.js"

/** Find is a search field, and what it has found. */
export class Find {
  constructor(run) {
    this.run = run
    this.searching = null

    this.input = element("input", {id: "custom-id", name: "custom_id", type: "search", autocomplete: "off", spellcheck: "false", autocapitalize: "off"})
    this.button = element("button", {type: "submit"}, "Find")
    this.form = element("form", {class: "find", role: "search"},
      element("div", {class: "field"}, element("label", {for: "custom-id"}, "custom_id of a request"), this.input), this.button)
    this.said = element("p", {role: "status"})
    this.lines = element("div", {class: "found"})
    this.node = element("section", {}, element("h2", {}, "Find a request"), this.form,
      element("div", {class: "found"}, this.said, this.lines))

    this.form.addEventListener("submit", (event) => {
      event.preventDefault()
      this.find(this.input.value)
    })
  }

  /** show searches for a custom_id that is shown elsewhere on the page, and moves there. */
  show(customID) {
    this.input.value = customID
    this.input.focus({preventScroll: true})
    this.node.scrollIntoView({block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth"})
    this.find(customID)
  }

  /** find searches for a custom_id. A search that runs is given up. */
  async find(customID) {
    this.stop()
    this.lines.replaceChildren()
    if (customID === "") {
      setText(this.said, "Type a custom_id.")
      return
    }

    const searching = this.searching = new AbortController()
    setText(this.said, "Searching…")
    try {
      await findRequest(this.run, customID, searching.signal, (result) => this.#show(result))
    } catch (error) {
      if (!searching.signal.aborted) {
        setText(this.said, error instanceof Refusal ? error.message : "The head does not answer. Try again when the page is live.")
      }
    }
  }

  /** stop gives up a search. */
  stop() {
    this.searching?.abort()
    this.searching = null
  }

  #show(result) {
    if (!result.done && result.total_bytes > 0) {
      setText(this.said, `Searching: ${formatShare(result.looked_bytes, result.total_bytes)} of ${formatBytes(result.total_bytes)}…`)
    } else {
      setText(this.said, [result.text, result.problem].filter((t) => t).join(" "))
    }

    this.lines.replaceChildren(...(result.lines ?? []).map(showLine))
  }
}

/** showLine shows an output line: the answer or the error as text, and the line below. */
function showLine(found) {
  const whole = found.line !== null && found.line !== undefined
  const text = whole ? readAnswer(found.line) : ""
  const answer = element("section", {}, element("h3", {class: "small"}, found.failed ? "Error" : "Answer"), element("pre", {tabindex: "0"}, text))
  setHidden(answer, text === "")

  return element("div", {class: "found"}, answer,
    element("section", {},
      element("h3", {class: "small"}, whole ? "Output line" : `The beginning of the output line, which has ${formatBytes(found.bytes)}`),
      element("pre", {tabindex: "0"}, whole ? JSON.stringify(found.line, null, 2) : found.text)))
}

/** readAnswer returns the text of an answer, or the message of an error; empty: there is none. */
function readAnswer(line) {
  const body = line.response?.body
  const [choice] = body?.choices ?? []
  const text = choice?.message?.content ?? choice?.text ?? body?.error?.message ?? line.error?.message

  return typeof text === "string" ? text : ""
}
