// Numbers, times and sizes as people read them. Times are in the zone of the viewer, and all
// words are English, whatever the browser's language is: so are the numbers.

/** nbsp stands between a number and its unit: a line does not break there. */
export const nbsp = "\u00a0"

const count = new Intl.NumberFormat("en-US", {maximumFractionDigits: 0})

/** formatCount formats a whole number with a comma at each thousand. */
export function formatCount(n) {
  return count.format(n)
}

/** formatCountOf formats a number of things, whose name takes an s: 1 run, 2,000 runs. */
export function formatCountOf(n, thing) {
  return `${formatCount(n)} ${thing}${n === 1 ? "" : "s"}`
}

/** formatRate formats a number with three digits, or with all before the decimal point. */
export function formatRate(n) {
  if (n === 0 || n >= 100) {
    return formatCount(n)
  }

  return n.toFixed(n >= 10 ? 1 : 2)
}

/** formatShare formats a part of a whole. Some is never 0%, and not all is never 100%. */
export function formatShare(part, whole) {
  if (whole <= 0) {
    return "0%"
  }

  const percent = 100 * part / whole
  if (percent > 0 && percent < 0.01) {
    return "under 0.01%"
  }

  const digits = percent === 0 || percent >= 9.95 ? 0 : percent >= 0.995 ? 1 : 2
  const text = percent.toFixed(digits)

  return text === "100" && part < whole ? "99.9%" : `${text}%`
}

/** formatBytes formats a size in units of 1024. */
export function formatBytes(n) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]
  let unit = 0
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024
    unit++
  }

  return unit === 0 ? formatCountOf(n, "byte") : `${n >= 100 ? n.toFixed(0) : n.toFixed(1)}${nbsp}${units[unit]}`
}

const minute = 60
const hour = 60 * minute
const day = 24 * hour

/** formatSeconds formats a short duration, such as a latency: 180 ms, 1.25 s, 2 min 5 s. */
export function formatSeconds(s) {
  if (s < 1) {
    return `${s < 0.01 ? (1000 * s).toFixed(1) : (1000 * s).toFixed(0)}${nbsp}ms`
  }
  if (s < minute) {
    return `${formatRate(s)}${nbsp}s`
  }

  return formatDuration(s)
}

/** formatDuration formats a duration with its two largest units: 12 s, 5 min 3 s, 2 h 10 min, 3 d 4 h. */
export function formatDuration(s) {
  s = Math.max(0, Math.round(s))
  const two = (large, small, names) => {
    const rest = Math.floor((s % large) / small)
    return `${Math.floor(s / large)}${nbsp}${names[0]}${rest > 0 ? ` ${rest}${nbsp}${names[1]}` : ""}`
  }

  if (s < minute) {
    return `${s}${nbsp}s`
  }
  if (s < hour) {
    return two(minute, 1, ["min", "s"])
  }
  if (s < day) {
    return two(hour, minute, ["h", "min"])
  }

  return two(day, hour, ["d", "h"])
}

/** formatAge formats the time since an event with one unit: now, 12 s ago, 5 min ago, 3 h ago. */
export function formatAge(s) {
  s = Math.max(0, s)
  if (s < 2) {
    return "now"
  }
  if (s < minute) {
    return `${Math.floor(s)}${nbsp}s ago`
  }
  if (s < hour) {
    return `${Math.floor(s / minute)}${nbsp}min ago`
  }
  if (s < 2 * day) {
    return `${Math.floor(s / hour)}${nbsp}h ago`
  }

  return `${Math.floor(s / day)}${nbsp}d ago`
}

/**
 * formatInterval formats a time between two numbers of seconds, in the unit of the larger one:
 * 12 to 15 min, or 14 min where both ends look the same.
 */
export function formatInterval(low, high) {
  const [size, unit] = high < 100 ? [1, "s"] : high < 100 * minute ? [minute, "min"] : high < 2 * day ? [hour, "h"] : [day, "d"]
  const digits = unit === "h" || unit === "d" ? 1 : 0
  const print = (s) => Number((s / size).toFixed(digits)).toString()
  const [from, to] = [print(low), print(high)]

  return from === to ? `${to}${nbsp}${unit}` : `${from} to ${to}${nbsp}${unit}`
}

const clock = new Intl.DateTimeFormat("en-GB", {hour: "2-digit", minute: "2-digit"})
const clockWithSeconds = new Intl.DateTimeFormat("en-GB", {hour: "2-digit", minute: "2-digit", second: "2-digit"})
const date = new Intl.DateTimeFormat("en-GB", {day: "numeric", month: "short"})
const fullTime = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short",
})

/** formatClock formats the time of a day: 15:42, or 3 Nov 15:42 on another day than now's. */
export function formatClock(at, now) {
  const other = at.toDateString() !== now.toDateString()

  return other ? `${date.format(at)} ${clock.format(at)}` : clock.format(at)
}

/** formatClockSeconds formats the time of a day with its seconds. */
export function formatClockSeconds(at) {
  return clockWithSeconds.format(at)
}

/** formatDay formats a date without its year: 3 Nov. */
export function formatDay(at) {
  return date.format(at)
}

/** formatTime formats a time with its date and zone. */
export function formatTime(at) {
  return fullTime.format(at)
}

/** joinFew joins the first names and counts the rest. */
export function joinFew(names, most) {
  const shown = names.slice(0, most).join(", ")

  return names.length > most ? `${shown} and ${formatCount(names.length - most)} more` : shown
}
