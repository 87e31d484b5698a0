// The bus: how full it is, and what fills it.

import {element, KeyedList, setAttribute, setHidden, setText} from "./dom.js"
import {formatBytes, formatClock, formatCount, formatDuration, formatShare} from "./format.js"
import {Heading} from "./heading.js"

// nearlyFull is the share of a limit from which on it is marked.
const nearlyFull = 0.9

/** BusView shows the bus. */
export class BusView {
  constructor() {
    this.title = "Bus"
    this.heading = new Heading("Bus")
    this.hidden = element("p", {class: "empty", hidden: true}, "Your key sees its own runs, and not the bus.")
    this.warnings = element("ul", {class: "cards"})
    this.warningRows = new KeyedList(this.warnings, (text) => text, () => new Warning())
    this.store = new Tile("Stored")
    this.disk = new Tile("Free on the disk of the output")
    this.version = new Tile("NATS server")
    this.connected = new Tile("Connected for")
    this.tiles = element("dl", {class: "tiles four"}, this.store.node, this.disk.node, this.version.node, this.connected.node)
    this.streams = element("tbody", {})
    this.streamRows = new KeyedList(this.streams, (stream) => stream.name, () => new StreamRow())
    this.none = element("p", {class: "empty", hidden: true}, "No run that has not ended has a stream.")
    this.table = element("table", {},
      element("thead", {}, element("tr", {},
        ...[["Stream", ""], ["Run", ""], ["Has", ""], ["Messages", "number"], ["Size", "number"], ["Limit", "number"], ["Full", "number"]]
          .map(([name, kind]) => element("th", {scope: "col", class: kind || null}, name)))),
      this.streams)
    this.body = element("div", {}, this.warnings, this.tiles,
      element("section", {}, element("h2", {}, "Streams, the fullest first"), this.none, this.table))
    this.node = element("div", {}, this.heading.node, this.hidden, this.body)
  }

  /** update shows the bus of an overview. */
  update({overview, now}) {
    if (!overview) {
      return
    }

    const {bus} = overview
    setHidden(this.hidden, Boolean(bus))
    setHidden(this.body, !bus)
    if (!bus) {
      this.heading.update({tone: "calm", text: "Not shown"})
      return
    }

    const answer = describeFill(bus)
    this.heading.update(answer)
    this.title = answer.text
    this.warningRows.update([...new Set(bus.warnings ?? [])])
    this.#updateTiles(bus, now)
    setHidden(this.table, bus.streams.length === 0)
    setHidden(this.none, bus.streams.length > 0)
    this.streamRows.update(bus.streams)
  }

  #updateTiles(bus, now) {
    const limited = bus.limit_bytes > 0
    this.store.update(formatBytes(bus.store_bytes), limited
      ? `${formatShare(bus.store_bytes, bus.limit_bytes)} of ${formatBytes(bus.limit_bytes)}; ${formatBytes(bus.reserved_bytes)} set aside`
      : "no limit is known")

    const known = bus.disk_free_bytes !== null && bus.disk_bytes > 0
    this.disk.update(known ? formatBytes(bus.disk_free_bytes) : "–", known
      ? `${formatShare(bus.disk_free_bytes, bus.disk_bytes)} of ${formatBytes(bus.disk_bytes)}`
      : "not known")

    this.version.update(bus.version || "–", bus.cluster ? `cluster ${bus.cluster}` : bus.own ? "inside this promptmill" : bus.name)
    this.connected.update(bus.connected ? formatDuration((now - new Date(bus.since)) / 1000) : "lost",
      bus.connected ? `since ${formatClock(new Date(bus.since), now)}` : "")
  }
}

/** describeFill says whether the bus is well. */
function describeFill(bus) {
  if (!bus.connected) {
    return {tone: "bad", text: "The bus does not answer. This page shows the last that was known."}
  }
  if (bus.warnings?.length > 0) {
    return {tone: "bad", text: bus.warnings.length === 1 ? "The bus needs attention." : `The bus needs attention, for ${bus.warnings.length} reasons.`}
  }

  const share = bus.limit_bytes > 0 ? `${formatShare(bus.store_bytes, bus.limit_bytes)} full` : `${formatBytes(bus.store_bytes)} stored`

  return {tone: "good", text: `The bus is well: ${share}.`}
}

/** Warning is a sentence about the bus. */
class Warning {
  constructor() {
    this.node = element("li", {class: "problem"})
  }

  update(text) {
    setText(this.node, text)
  }
}

/** Tile is a large figure with its name above and a note below. */
export class Tile {
  constructor(name) {
    this.value = element("dd", {})
    this.note = element("dd", {class: "note"})
    this.node = element("div", {}, element("dt", {}, name), this.value, this.note)
  }

  update(value, note = "", bad = false) {
    setText(this.value, value)
    setAttribute(this.value, "class", bad ? "bad-text" : null)
    setText(this.note, note)
  }
}

/** StreamRow is a stream in the table. */
class StreamRow {
  constructor() {
    this.cells = ["Run", "Has", "Messages", "Size", "Limit", "Full"].map((name, i) =>
      element("td", {"data-name": name, class: i >= 2 ? "number" : null}))
    this.name = element("th", {scope: "row"})
    this.run = element("a", {})
    this.cells[0].append(this.run)
    this.node = element("tr", {}, this.name, ...this.cells)
  }

  update(stream) {
    const [, kind, messages, size, limit, full] = this.cells
    const limited = stream.limit_bytes > 0

    setText(this.name, stream.name)
    setText(this.run, stream.run)
    setAttribute(this.run, "href", `#/runs/${encodeURIComponent(stream.run)}`)
    setText(kind, stream.kind)
    setText(messages, formatCount(stream.messages))
    setText(size, formatBytes(stream.bytes))
    setText(limit, limited ? formatBytes(stream.limit_bytes) : "none")
    setText(full, limited ? formatShare(stream.bytes, stream.limit_bytes) : "–")
    setAttribute(full, "class", limited && stream.bytes > nearlyFull * stream.limit_bytes ? "number bad-text" : "number")
  }
}
