// The heading of a view: its name, and its answer in a sentence.

import {element, setAttribute, setHidden, setText} from "./dom.js"

// longAnswer is the number of characters from which on an answer is set smaller.
const longAnswer = 110

/** Heading is the heading of a view. */
export class Heading {
  /**
   * @param title the name of the view
   * @param aside nodes after the name
   */
  constructor(title, ...aside) {
    this.name = element("h1", {}, title)
    this.answer = element("p", {class: "answer"})
    this.end = element("p", {class: "end", hidden: true})
    this.node = element("header", {class: "heading"}, element("div", {class: "title"}, this.name, ...aside), this.answer, this.end)
  }

  /** update shows an answer: {tone, text, done}. */
  update({tone, text, done}) {
    setText(this.answer, text)
    setAttribute(this.answer, "class", `answer ${tone}${text.length > longAnswer ? " long" : ""}`)
    setText(this.end, done ?? "")
    setHidden(this.end, !done)
  }
}
