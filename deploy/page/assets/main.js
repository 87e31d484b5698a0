// The page: which view is shown, and what it shows.

import {signOut} from "./api.js"
import {BusView} from "./bus.js"
import {setAttribute, setHidden, setText, element} from "./dom.js"
import {Events} from "./events.js"
import {formatAge} from "./format.js"
import {LoginView} from "./login.js"
import {RunView} from "./run.js"
import {RunsView} from "./runs.js"
import {WorkersView} from "./workers.js"

const nodeOf = (id) => document.getElementById(id)

/** App is the page. */
class App {
  constructor() {
    this.session = {may_change: false, own_only: false}
    this.overview = null
    this.detail = null
    this.gone = null
    this.view = null
    this.announced = ""
    this.clock = new HeadClock()
    this.events = new Events({
      onState: () => this.#onState(),
      onSession: (session) => this.#onSession(session),
      onEvent: (name, data) => this.#onEvent(name, data),
    })
  }

  /** start shows the view of the address, and connects. */
  start() {
    window.addEventListener("hashchange", () => this.#navigate(true))
    nodeOf("skip").addEventListener("click", (event) => {
      event.preventDefault()
      nodeOf("main").focus()
    })
    nodeOf("sign-out").addEventListener("click", () => this.#signOut())
    document.addEventListener("visibilitychange", () => this.#update())
    setInterval(() => document.hidden || this.#update(), 1000)

    this.#navigate(false)
    this.events.connect()
  }

  /** #navigate shows the view that the address names. */
  #navigate(byViewer) {
    const [, view, id] = location.hash.split("/")
    const run = view === "runs" && id ? decodeRun(id) : ""
    if (byViewer && location.hash !== "" && !location.hash.startsWith("#/")) {
      return // a place in the page
    }

    this.run = run
    this.gone = null
    this.events.follow(run)
    this.#show(run ? new RunView(run) : view === "workers" ? new WorkersView() : view === "bus" ? new BusView() : new RunsView())
    for (const link of nodeOf("views").children) {
      const here = link.hash === (run || !view ? "#/" : `#/${view}`)
      setAttribute(link, "aria-current", here ? (run ? "true" : "page") : null)
    }

    if (byViewer) {
      window.scrollTo(0, 0)
      nodeOf("main").focus({preventScroll: true})
    }
  }

  #show(view) {
    this.view?.destroy?.()
    this.view = view
    nodeOf("main").replaceChildren(view.node)
    this.#update()
  }

  #update() {
    const {session, overview, detail, gone} = this
    const now = this.clock.now(this.events.state === "live")

    this.view.update({session, overview, detail, gone, now})
    setText(document.head.querySelector("title"), `${this.view.title} · promptmill`)
    this.#updateConnection()
    this.#announce()
  }

  #onEvent(name, data) {
    switch (name) {
    case "state":
      this.overview = data
      this.clock.set(data.at)
      break
    case "run":
      this.detail = data
      this.gone = null
      this.clock.set(data.at)
      break
    case "gone":
      this.gone = data
      break
    }

    this.#update()
  }

  #onSession(session) {
    if (this.session.version && session.version !== this.session.version) {
      this.#offerReload(session.version)
    }

    this.session = session
    setHidden(nodeOf("sign-out"), !session.key_needed || !session.signed_in)
    setAttribute(nodeOf("sign-out"), "title", session.key ? `Signed in with the key ${session.key}` : null)
  }

  #onState() {
    const locked = this.events.state === "locked"
    setHidden(nodeOf("views"), locked)
    if (locked && !(this.view instanceof LoginView)) {
      this.#show(new LoginView(() => this.events.connect()))
      nodeOf("key").focus()
    } else if (this.events.state === "live" && this.view instanceof LoginView) {
      this.#navigate(true)
    }

    this.#update()
  }

  #updateConnection() {
    const {state, problem, lastEvent} = this.events
    const last = lastEvent ? ` Last update ${formatAge((Date.now() - lastEvent) / 1000)}.` : ""
    const texts = {
      connecting: "Connecting…",
      live: "Live",
      away: `${problem || "The head does not answer."} Reconnecting…${last}`,
      asleep: "Asleep",
      locked: "",
      closed: "",
    }

    setText(nodeOf("connection"), texts[state])
    setAttribute(nodeOf("connection"), "class", `connection ${state}`)
  }

  /**
   * #announce tells screen readers what matters, when it changes: the answer of the view as its tone changes,
   * and the connection as it breaks and is back. Figures that change each second are not read out.
   */
  #announce() {
    const {state} = this.events
    const answer = this.view.heading
    const tone = answer?.answer.className ?? ""
    const kind = `${location.hash} ${tone.replace(" long", "")} ${state === "away"}`
    if (kind === this.announced || state === "connecting" || !this.overview) {
      return
    }

    this.announced = kind
    setText(nodeOf("announcement"), state === "away" ? "The connection is lost. Reconnecting." : answer?.answer.textContent ?? "")
  }

  #offerReload(version) {
    const button = element("button", {type: "button"}, "Reload")
    button.addEventListener("click", () => location.reload())
    nodeOf("notice")?.remove()
    nodeOf("main").before(element("div", {class: "notice", id: "notice", role: "status"},
      element("span", {}, `The head now runs promptmill ${version}.`), button))
  }

  async #signOut() {
    this.events.close()
    this.overview = this.detail = null
    try {
      await signOut()
    } finally {
      this.events.connect()
    }
  }
}

/**
 * HeadClock is the clock of the head: ages are counted by it, since the viewer's may be wrong. It stands
 * still while the head is away, so that nothing looks older than it was known to be.
 */
class HeadClock {
  constructor() {
    this.at = Date.now()
    this.set(new Date(this.at).toISOString())
  }

  set(time) {
    this.base = Date.parse(time)
    this.since = performance.now()
  }

  now(live) {
    if (live) {
      this.at = this.base + performance.now() - this.since
    }

    return new Date(this.at)
  }
}

function decodeRun(text) {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

new App().start()
