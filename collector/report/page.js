(() => {
  "use strict"

  // A folded part that is not printed would be lost.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true }))

  // Each command line can be copied. Pages from another machine without TLS have no clipboard: there it is selected.
  document.querySelectorAll("pre").forEach((pre) => {
    const copy = document.createElement("button")
    copy.type = "button"
    copy.className = "copy"
    copy.textContent = "Copy"
    copy.setAttribute("aria-label", "Copy the command")
    copy.addEventListener("click", async () => {
      let done = false
      try {
        await navigator.clipboard.writeText(pre.textContent)
        done = true
      } catch {
        getSelection().selectAllChildren(pre)
      }
      copy.textContent = done ? "Copied" : "Selected"
      copy.setAttribute("aria-label", done ? "Copied" : "Selected: copy it by keyboard")
    })
    pre.before(copy)
  })

  const source = document.getElementById("data")
  if (!source) return

  const data = JSON.parse(source.textContent)
  const reset = document.getElementById("reset")
  const overTime = [] // the charts that share the time, and are zoomed together
  let charts = []

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim()

  const format = (v) => {
    const a = Math.abs(v)
    const digits = a >= 99.95 || Number.isInteger(v) ? 0 : a >= 9.995 ? 1 : a >= 0.0995 ? 2 : 4
    return v.toLocaleString("en", { maximumFractionDigits: digits })
  }

  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]
  const formatTime = (seconds) => {
    const parts = []
    let left = Math.round(seconds)
    for (const [size, name] of units) {
      const n = Math.floor(left / size)
      if (n > 0 && parts.length < 2) parts.push(n + " " + name)
      left -= n * size
    }
    return parts.join(" ") || "0"
  }

  const formatClock = (seconds) => new Date((data.start + seconds) * 1000).toISOString().slice(11, 19) + " UTC"

  const spanAt = (x, spans = data.spans) => spans.find((s) => s.from <= x && x < s.to)

  // Within a span, what is not known is a gap; elsewhere a line goes on to the next reading.
  const columns = (chart) => {
    if (chart.kind === "histogram") return [chart.lines[0].values.map((_, i) => i + 0.5), chart.lines[0].values]

    const n = Math.max(...chart.lines.map((l) => l.values.length))
    const x = Array.from({ length: n }, (_, i) => (i + 0.5) * data.step)
    return [x, ...chart.lines.map((l) => x.map((at, i) => l.values[i] ?? (i >= l.values.length || spanAt(at, l.gaps) ? null : undefined)))]
  }

  const lineColour = (chart, i) => () => {
    if (data.runs) return colour("run-" + i)
    if (chart.id === "failures") return colour("bad")
    return colour(chart.lines[i].dashed ? "soft" : "accent")
  }

  const series = (chart) => chart.lines.map((l, i) => {
    const stroke = lineColour(chart, i)
    if (chart.kind !== "lines") {
      return { label: l.name, stroke, fill: stroke, width: 0, points: { show: false },
        paths: uPlot.paths.bars({ size: [chart.kind === "histogram" ? 0.92 : 0.8, 80] }) }
    }

    const only = chart.lines.length === 1
    return { label: l.name, stroke, width: 1.5, dash: l.dashed ? [5, 4] : undefined,
      fill: only ? () => colour("accent-soft") : undefined, points: { size: 4 } }
  })

  const timeSteps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800]

  const axes = (chart) => {
    const style = { stroke: () => colour("soft"), font: "11px system-ui, sans-serif",
      grid: { stroke: () => colour("rule"), width: 1 }, ticks: { show: false } }
    const x = { ...style, size: 24, gap: 6, space: 70, grid: { show: false } }
    if (chart.kind === "histogram") {
      Object.assign(x, { incrs: [1, 2, 5, 10, 20, 50], space: 44, values: (_, at) => at.map((v) => chart.edges[v] === undefined ? "" : format(chart.edges[v])) })
    } else {
      Object.assign(x, { incrs: timeSteps, values: (_, at) => at.map(formatTime) })
    }

    return [x, { ...style, size: 52, gap: 6, space: 32, values: (_, at) => at.map(format) }]
  }

  const drawSpans = (u) => {
    for (const span of data.spans) {
      const left = Math.max(u.valToPos(span.from, "x", true), u.bbox.left)
      const right = Math.min(u.valToPos(span.to, "x", true), u.bbox.left + u.bbox.width)
      if (right <= left) continue

      u.ctx.save()
      u.ctx.fillStyle = colour(span.kind === "interrupted" ? "interrupted" : "idle")
      u.ctx.fillRect(left, u.bbox.top, Math.max(right - left, devicePixelRatio * 2), u.bbox.height)
      u.ctx.restore()
    }
  }

  // What a chart shows at its cursor.
  const read = (chart, u) => {
    const i = u.cursor.idx
    if (i == null) return ""

    if (chart.kind === "histogram") {
      return format(chart.edges[i]) + " to " + format(chart.edges[i + 1]) + ": " + format(u.data[1][i]) + " requests"
    }

    const values = chart.lines.map((l, j) => [l.name, u.data[j + 1][i]]).filter(([, v]) => v != null)
      .map(([name, v]) => chart.lines.length > 1 ? name + " " + format(v) : format(v))
    const x = u.data[0][i]
    const span = spanAt(x)
    if (span && values.length === 0) values.push(span.kind === "interrupted" ? "interrupted" : "no work")
    return formatTime(x - data.step / 2) + (data.start ? " (" + formatClock(x - data.step / 2) + ")" : "") + ": " + values.join(", ")
  }

  let zooming = false
  const zoom = (min, max) => {
    if (zooming) return
    zooming = true
    overTime.forEach((u) => u.setScale("x", { min, max }))
    zooming = false
  }

  const extent = (u) => u.whole
  const zoomOut = () => charts.forEach((u) => u.setScale("x", { min: extent(u)[0], max: extent(u)[1] }))

  const isZoomed = (u) => u.scales.x.min > extent(u)[0] || u.scales.x.max < extent(u)[1]
  reset.addEventListener("click", zoomOut)

  // Keys move the cursor and zoom around it.
  const onKey = (u) => (e) => {
    const [low, high] = [u.valToIdx(u.scales.x.min), u.valToIdx(u.scales.x.max)]
    const i = u.cursor.idx ?? low
    const [min, max] = [u.scales.x.min, u.scales.x.max]
    const around = (factor) => {
      const [least, most] = extent(u)
      const middle = u.data[0][i], half = (max - min) * factor / 2
      u.setScale("x", { min: Math.max(least, middle - half), max: Math.min(most, middle + half) })
    }
    const step = Math.max(1, Math.round((high - low) / 100))
    const moveTo = (to) => {
      const at = Math.min(high, Math.max(low, to))
      u.root.parentElement.previousElementSibling.querySelector(".readout").setAttribute("aria-live", "polite")
      u.setCursor({ left: u.valToPos(u.data[0][at], "x"), top: 1 })
    }
    const actions = { ArrowLeft: () => moveTo(i - step), ArrowRight: () => moveTo(i + step), Home: () => moveTo(low), End: () => moveTo(high),
      "+": () => around(0.5), "=": () => around(0.5), "-": () => around(2), Escape: zoomOut }
    if (!actions[e.key] || e.ctrlKey || e.metaKey || e.altKey) return
    actions[e.key]()
    e.preventDefault()
  }

  // One finger reads, two fingers zoom. A mouse is uPlot's own.
  const addTouch = (u) => {
    const fingers = new Map()
    let start = null
    const at = (e) => e.clientX - u.over.getBoundingClientRect().left
    const spread = () => { const [a, b] = [...fingers.values()]; return [Math.min(a, b), Math.max(a, b)] }
    u.over.addEventListener("pointerdown", (e) => {
      if (e.pointerType !== "touch") return
      fingers.set(e.pointerId, at(e))
      if (fingers.size === 2) start = spread().map((px) => u.posToVal(px, "x"))
      u.setCursor({ left: at(e), top: 1 })
    })
    u.over.addEventListener("pointermove", (e) => {
      if (!fingers.has(e.pointerId)) return
      fingers.set(e.pointerId, at(e))
      if (fingers.size === 1) { u.setCursor({ left: at(e), top: 1 }); return }
      if (!start || fingers.size > 2) return

      const [a, b] = spread()
      if (b - a < 10) return
      const scale = (start[1] - start[0]) / (b - a), [least, most] = extent(u)
      const min = Math.max(least, start[0] - a * scale)
      u.setScale("x", { min, max: Math.min(most, min + u.over.clientWidth * scale) })
    })
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
      u.over.addEventListener(end, (e) => { fingers.delete(e.pointerId); start = null })
    }
  }

  const draw = (chart) => {
    const element = document.getElementById("chart-" + chart.id)
    const readout = element.previousElementSibling.querySelector(".readout")
    const summary = readout.dataset.summary ??= readout.textContent
    const values = columns(chart)
    const isHistogram = chart.kind === "histogram"
    const whole = [0, isHistogram ? values[0].length : values[0].length * data.step]

    const u = new uPlot({
      width: element.clientWidth || element.parentElement.clientWidth,
      height: 176,
      legend: { show: false },
      padding: [8, 34, 0, 0],
      cursor: { y: false, drag: { x: true, y: false, dist: 4 }, sync: isHistogram ? undefined : { key: "time", setSeries: false },
        points: { size: 7 }, bind: { dblclick: () => () => { zoomOut(); return null } } },
      scales: { x: { time: false, min: whole[0], max: whole[1], range: (_, min, max) => [min ?? whole[0], max ?? whole[1]] },
        y: { range: (_, min, max) => [0, (max > 0 ? max : 1) * 1.08] } },
      axes: axes(chart),
      series: [{}, ...series(chart)],
      hooks: {
        drawClear: isHistogram ? [] : [drawSpans],
        setCursor: [(u) => { readout.textContent = read(chart, u) || summary }],
        setScale: [(u, key) => {
          if (key !== "x") return
          if (!isHistogram && overTime.includes(u)) zoom(u.scales.x.min, u.scales.x.max)
          reset.hidden = !charts.some(isZoomed)
        }],
      },
    }, values, element)

    u.whole = whole
    charts.push(u)
    if (!isHistogram) overTime.push(u)
    addTouch(u)
    element.onkeydown = onKey(u)
    element.onblur = () => { u.setCursor({ left: -10, top: -10 }) }
    u.setScale("x", { min: whole[0], max: whole[1] })
    new ResizeObserver(() => {
      const size = { width: element.clientWidth, height: element.clientHeight }
      if (size.width > 0 && (size.width !== u.width || size.height !== u.height)) u.setSize(size)
    }).observe(element)
  }

  document.querySelectorAll(".plot").forEach((e) => { e.style.display = "block" })
  data.charts.forEach(draw)
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((u) => u.redraw(true)))
})()
