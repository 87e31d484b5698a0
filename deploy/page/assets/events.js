// The connection to the head: one stream of server-sent events, which comes back by itself.

import {eventsPath, readSession, Refusal} from "./api.js"

// retryAfter is the time in milliseconds before the next attempt to connect. A head that restarts is back
// within seconds, and an attempt costs it next to nothing.
const retryAfter = 2000

// silentFor is the time in milliseconds without an event after which the page asks whether the head is
// still there. A phone that changes networks does not learn that its connection is dead.
const silentFor = 30000

// hiddenFor is the time in milliseconds after which a page that is not seen gives its stream back. A browser has six
// connections to a server at most, for all of its tabs.
const hiddenFor = 60000

/**
 * Events follows the head. Its states are:
 *
 *   connecting  nothing has come yet
 *   live        the stream is open
 *   away        the head does not answer; problem says why, if it is known
 *   asleep      the page is hidden
 *   locked      a key is needed
 *   closed      close was called
 */
export class Events {
  /**
   * @param listener {onState(state), onSession(session), onEvent(name, data)}
   */
  constructor(listener) {
    this.listener = listener
    this.state = "connecting"
    this.problem = ""
    this.session = null
    this.run = ""
    this.lastEvent = null // the time of the last event, as a Date
    this.source = null
    this.timer = 0
    this.silence = 0

    document.addEventListener("visibilitychange", () => this.#sleepOrWake())
    window.addEventListener("online", () => this.state === "away" && this.connect())
  }

  /** follow changes the run whose events come besides those of all runs; empty: none. */
  follow(run) {
    if (run === this.run) {
      return
    }

    this.run = run
    if (this.source) {
      this.#open()
    }
  }

  /** connect asks who looks at the page, and opens the stream. */
  async connect() {
    this.#stop()

    const attempt = this.attempt = {}
    let session
    try {
      session = await readSession()
    } catch (error) {
      if (attempt === this.attempt) {
        this.#retry(error instanceof Refusal ? error.message : "")
      }
      return
    }

    if (attempt !== this.attempt) {
      return
    }

    this.session = session
    this.listener.onSession(session)
    if (session.key_needed && !session.signed_in) {
      this.#set("locked")
      return
    }

    this.#open()
  }

  /** close ends the stream for good. */
  close() {
    this.#stop()
    this.#set("closed")
  }

  #open() {
    this.#stop()

    const source = this.source = new EventSource(eventsPath(this.run))
    for (const name of ["state", "run", "gone"]) {
      source.addEventListener(name, (event) => {
        this.#heard()
        this.listener.onEvent(name, JSON.parse(event.data))
      })
    }

    source.addEventListener("stopping", () => this.#retry("promptmill is stopping."))

    // Browsers differ in what they try again by themselves, and none tells the status of a refusal.
    source.addEventListener("error", () => {
      source.close()
      this.source = null
      this.#retry("")
    })
  }

  #heard() {
    this.lastEvent = new Date()
    this.#set("live")

    clearTimeout(this.silence)
    this.silence = setTimeout(() => this.connect(), silentFor)
  }

  #retry(problem) {
    this.#stop()
    this.problem = problem
    this.#set("away")
    this.timer = setTimeout(() => this.connect(), retryAfter)
  }

  #sleepOrWake() {
    if (!document.hidden) {
      if (this.state === "asleep") {
        this.connect()
      } else if (this.state === "live") {
        clearTimeout(this.timer)
      }
      return
    }

    if (this.state === "live") {
      this.timer = setTimeout(() => {
        this.#stop()
        this.#set("asleep")
      }, hiddenFor)
    }
  }

  #stop() {
    this.attempt = null
    clearTimeout(this.timer)
    clearTimeout(this.silence)
    this.source?.close()
    this.source = null
  }

  #set(state) {
    if (state === "live") {
      this.problem = ""
    }
    if (state !== this.state || state === "away") {
      this.state = state
      this.listener.onState(state)
    }
  }
}
