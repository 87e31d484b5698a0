// What fails: the causes, each with the server's own message and an example, and the latest failed requests.

import {element, KeyedList, setHidden, setText} from "./dom.js"
import {formatCount, formatCountOf, formatShare} from "./format.js"
import {nameCause} from "./health.js"

// mostCauses bounds the causes that are shown: the others are rare.
const mostCauses = 5

/** Causes shows why requests of a run failed. */
export class Causes {
  /**
   * @param onFind is called with the custom_id that the viewer wants to see
   */
  constructor(onFind) {
    this.list = element("ul", {class: "cards", "aria-labelledby": "causes"})
    this.rows = new KeyedList(this.list, (f) => f.cause, () => new CauseRow(onFind))
    this.count = element("span", {class: "count"})
    this.others = element("p", {class: "small soft", hidden: true})
    this.node = element("section", {hidden: true, class: "causes"},
      element("h2", {id: "causes"}, "What fails, and why ", this.count), this.list, this.others)
  }

  /** update shows the causes of a RunDetail. */
  update({run, results}) {
    const causes = listCauses(run, results)
    const {failed, done} = run.progress
    const others = causes.slice(mostCauses)

    setHidden(this.node, causes.length === 0)
    setText(this.count, `${formatCountOf(failed, "request")}, ${formatShare(failed, done)} of those done`)
    this.rows.update(causes.slice(0, mostCauses), failed)
    setText(this.others, `Others: ${others.map((c) => `${nameCause(c.cause)} (${formatCount(c.count)})`).join(", ")}.`)
    setHidden(this.others, others.length === 0)
  }
}

// fewFailures is the number of latest failures that are shown at first.
const fewFailures = 5

/** LatestFailures shows the latest failed requests. */
export class LatestFailures {
  /**
   * @param onFind is called with the custom_id that the viewer wants to see
   */
  constructor(onFind) {
    this.shownAll = false
    this.list = element("ul", {class: "card lines", "aria-labelledby": "last-failures"})
    this.rows = new KeyedList(this.list, (f) => f.custom_id, () => new FailureRow(onFind))
    this.more = element("button", {type: "button", class: "quiet", hidden: true})
    this.node = element("section", {hidden: true}, element("h2", {id: "last-failures"}, "Latest failures"), this.list, this.more)

    this.more.addEventListener("click", () => {
      this.shownAll = true
      this.#show()
    })
  }

  /** update shows the latest failures of a RunDetail. */
  update({last_failures: failures}) {
    // A custom_id that is not unique would be two rows of one key.
    this.failures = [...new Map((failures ?? []).map((f) => [f.custom_id, f])).values()]
    setHidden(this.node, this.failures.length === 0)
    this.#show()
  }

  #show() {
    const shown = this.shownAll ? this.failures : this.failures.slice(0, fewFailures)
    const hidden = this.failures.length - shown.length

    this.rows.update(shown)
    setText(this.more, `Show ${formatCount(hidden)} more`)
    setHidden(this.more, hidden === 0)
  }
}

/** listCauses returns the causes of the failures, the most frequent first, with what is known of each. */
function listCauses(run, results) {
  if (results?.failure_details?.length > 0) {
    return results.failure_details
  }

  return Object.entries(results?.failures ?? run.failures ?? {})
    .map(([cause, count]) => ({cause, count, message: "", custom_id: results?.failure_examples?.[cause] ?? ""}))
    .sort((a, b) => b.count - a.count)
}

class CauseRow {
  constructor(onFind) {
    this.cause = element("h3", {})
    this.count = element("span", {class: "number"})
    this.message = element("p", {class: "message"})
    this.example = new ExampleButton(onFind)
    this.sample = element("p", {class: "small soft"}, "For example ", this.example.node)
    this.node = element("li", {class: "card failure"}, element("header", {}, this.cause, this.count), this.message, this.sample)
  }

  update({cause, count, message, custom_id: example}, failed) {
    setText(this.cause, nameCause(cause))
    setText(this.count, `${formatCount(count)} (${formatShare(count, Math.max(count, failed))})`)
    setText(this.message, message)
    setHidden(this.message, !message)
    this.example.update(example)
    setHidden(this.sample, !example)
  }
}

class FailureRow {
  constructor(onFind) {
    this.request = new ExampleButton(onFind)
    this.about = element("span", {class: "small soft"})
    this.message = element("p", {class: "message"})
    this.node = element("li", {class: "failure"}, element("header", {}, element("h3", {}, this.request.node), this.about), this.message)
  }

  update(failure) {
    const about = [nameCause(failure.cause)]
    if (failure.status > 0 && about[0] !== `HTTP ${failure.status}`) {
      about.push(`HTTP ${failure.status}`)
    }
    if (failure.attempts > 0) {
      about.push(formatCountOf(failure.attempts, "attempt"))
    }
    if (failure.worker) {
      about.push(failure.worker)
    }

    this.request.update(failure.custom_id)
    setText(this.about, about.join(" · "))
    setText(this.message, failure.message)
  }
}

/** ExampleButton is a custom_id that shows its line. */
class ExampleButton {
  constructor(onFind) {
    this.customID = ""
    this.node = element("button", {type: "button", class: "link"})
    this.node.addEventListener("click", () => onFind(this.customID))
  }

  update(customID) {
    this.customID = customID
    setText(this.node, customID)
  }
}
