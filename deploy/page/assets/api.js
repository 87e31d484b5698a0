// The requests of the page to the head. All paths are relative: the page also works behind a proxy
// that serves it under a path.

/** Refusal is an answer of the head that is not what was asked for. */
export class Refusal extends Error {
  /**
   * @param status the HTTP status
   * @param code the head's word for it; empty: it gave none
   * @param message a sentence for people
   */
  constructor(status, code, message) {
    super(message)
    this.status = status
    this.code = code
  }
}

/** readSession asks who looks at the page, and what they may do. */
export async function readSession() {
  const answer = await send("page/api/session", {signal: AbortSignal.timeout(10000)})

  return answer.json()
}

/** signIn gives the head a key, for a cookie. */
export async function signIn(key) {
  await send("page/login", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({key}),
  })
}

/** signOut has the cookie removed. */
export async function signOut() {
  await send("page/logout", {method: "POST"})
}

/** changeRun pauses, resumes, cancels or retries a run. It returns what has changed. */
export async function changeRun(id, action) {
  const answer = await send(`page/api/runs/${encodeURIComponent(id)}/${action}`, {method: "POST"})

  return answer.json()
}

/**
 * findRequest looks for the lines of a custom_id, and calls each with the result so far: a big output takes
 * seconds to search. signal ends the search.
 */
export async function findRequest(id, customID, signal, each) {
  const path = `page/api/runs/${encodeURIComponent(id)}/find?custom_id=${encodeURIComponent(customID)}`
  const answer = await send(path, {signal})

  let rest = ""
  const lines = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  for (;;) {
    const {value, done} = await lines.read()
    if (done) {
      break
    }

    const whole = (rest + value).split("\n")
    rest = whole.pop()
    whole.filter((line) => line !== "").forEach((line) => each(parseExact(line)))
  }

  if (rest.trim() !== "") {
    each(parseExact(rest))
  }
}

/** eventsPath returns the path of the event stream, with the events of a run if there is one. */
export function eventsPath(run) {
  return run ? `page/events?run=${encodeURIComponent(run)}` : "page/events"
}

/**
 * parseExact parses a search result. The numbers of its lines stay as they were written: a number
 * of JavaScript has 53 bits, and a seed or an id may have more.
 */
function parseExact(text) {
  const result = JSON.parse(text)
  if (JSON.rawJSON && result.lines) {
    const exact = JSON.parse(text, (key, value, {source}) => typeof value === "number" ? JSON.rawJSON(source) : value)
    result.lines.forEach((line, i) => { line.line = exact.lines[i].line })
  }

  return result
}

/** send sends a request. It throws a Refusal, or the TypeError of fetch if the head cannot be reached. */
async function send(path, options) {
  const answer = await fetch(path, {cache: "no-store", credentials: "same-origin", ...options})
  if (answer.ok) {
    return answer
  }

  let error = {}
  try {
    error = await answer.json()
  } catch {
    // A proxy answers with a page of its own.
  }

  throw new Refusal(answer.status, error.code ?? "", error.message || `The head answered with HTTP status ${answer.status}.`)
}
