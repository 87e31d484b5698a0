// What a viewer may do with a run: pause, resume, cancel, retry.

import {changeRun, Refusal} from "./api.js"
import {element, setHidden, setText} from "./dom.js"
import {formatCountOf} from "./format.js"
import {nameRun} from "./health.js"

const names = {pause: "Pause", resume: "Resume", cancel: "Cancel…", retry: "Retry failed"}

// order is the order of the buttons: what ends a run stands last.
const order = ["resume", "pause", "retry", "cancel"]

/** Actions are the buttons of a run. */
export class Actions {
  constructor(run) {
    this.run = run
    this.buttons = new Map(order.map((action) => [action, this.#makeButton(action)]))
    this.said = element("p", {class: "said", role: "status"})
    this.node = element("div", {class: "actions"}, ...this.buttons.values(), this.said)
    this.question = new CancelQuestion(() => this.#change("cancel"))
    this.node.append(this.question.node)
  }

  /** update shows the buttons that a viewer may press in the state of the run. */
  update(run, mayChange) {
    const possible = mayChange ? run.actions ?? [] : []
    for (const [action, button] of this.buttons) {
      setHidden(button, !possible.includes(action))
    }

    setHidden(this.node, possible.length === 0 && this.said.textContent === "")
    this.question.update(run)
  }

  #makeButton(action) {
    const button = element("button", {type: "button", class: action === "cancel" ? "danger" : null, hidden: true}, names[action])
    button.addEventListener("click", () => action === "cancel" ? this.question.ask() : this.#change(action))

    return button
  }

  async #change(action) {
    this.#setDisabled(true)
    setText(this.said, "…")
    try {
      const changed = await changeRun(this.run, action)
      setText(this.said, changed.text)
    } catch (error) {
      setText(this.said, error instanceof Refusal ? error.message : "The head does not answer. Nothing has been changed, as far as this page knows.")
    } finally {
      this.#setDisabled(false)
    }
  }

  #setDisabled(disabled) {
    for (const button of this.buttons.values()) {
      button.disabled = disabled
    }
  }
}

/** CancelQuestion asks before a run is cancelled: that cannot be undone. */
class CancelQuestion {
  constructor(onYes) {
    this.title = element("h2", {id: "cancel-title"})
    this.text = element("p", {})
    const no = element("button", {type: "submit", value: "no", autofocus: true}, "Keep the run")
    const yes = element("button", {type: "submit", value: "yes", class: "main danger"}, "Cancel the run")
    this.node = element("dialog", {"aria-labelledby": "cancel-title"}, this.title, this.text,
      element("form", {method: "dialog", class: "actions"}, no, yes))
    this.node.addEventListener("close", () => this.node.returnValue === "yes" && onYes())
  }

  ask() {
    this.node.returnValue = ""
    this.node.showModal()
  }

  update(run) {
    const left = run.progress.total - run.progress.done
    setText(this.title, `Cancel ${nameRun(run)}?`)
    setText(this.text, `${formatCountOf(left, "request")} without an answer will not be run. The answers so far are kept. This cannot be undone.`)
  }
}
