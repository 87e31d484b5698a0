// The form that asks for an API key.

import {Refusal, signIn} from "./api.js"
import {element, setText} from "./dom.js"

/** LoginView asks for a key. */
export class LoginView {
  /**
   * @param onDone is called when the head has taken a key
   */
  constructor(onDone) {
    this.title = "Sign in"
    this.input = element("input", {id: "key", type: "password", autocomplete: "current-password", required: true, "aria-describedby": "key-said"})
    this.button = element("button", {type: "submit", class: "main"}, "Sign in")
    this.said = element("p", {id: "key-said", class: "bad-text", role: "alert"})
    this.form = element("form", {class: "login"},
      element("h1", {}, "Sign in"),
      element("p", {class: "soft"}, "This page needs an API key. ", element("code", {}, "promptmill key create"), " makes one."),
      element("input", {type: "text", autocomplete: "username", value: "promptmill", hidden: true}), // for password managers
      element("div", {class: "field"}, element("label", {for: "key"}, "API key"), this.input),
      element("div", {}, this.button), this.said)
    this.node = element("div", {}, this.form)

    this.form.addEventListener("submit", async (event) => {
      event.preventDefault()
      await this.#submit(onDone)
    })
  }

  update() {}

  async #submit(onDone) {
    this.button.disabled = true
    try {
      await signIn(this.input.value.trim())
      this.input.value = ""
      setText(this.said, "")
      onDone()
    } catch (error) {
      setText(this.said, error instanceof Refusal ? error.message : "The head does not answer. Try again in a moment.")
    } finally {
      this.button.disabled = false
    }
  }
}
