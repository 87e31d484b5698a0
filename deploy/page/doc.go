// Package page is the live page of a head: what runs, how far it is, what fails and why. It serves one HTML page
// with its scripts, JSON, and server-sent events. It works without the network and needs no other program.
//
// The routes:
//
//	GET  /                              the page; its script shows what stands after the #, such as #/runs/ID
//	GET  /assets/NAME                   scripts and styles, with an ETag
//	GET  /page/api/session              Session: who looks, and what that key may do; it needs no key
//	POST /page/login                    Login: sets the cookie of a session; 401 for a wrong key
//	POST /page/logout                   removes the cookie
//	GET  /page/api/overview             Overview
//	GET  /page/api/runs/ID              RunDetail
//	GET  /page/api/runs/ID/find         ?custom_id=TEXT: FindResult, one a line until its done is true
//	POST /page/api/runs/ID/ACTION       pause, resume, cancel or retry: Changed, or an Error
//	GET  /page/events                   server-sent events; ?run=ID adds those of a run
//
// A request has its key in the header Authorization: Bearer KEY, or the cookie of a session. Refusals are an
// [Error] with status 400 (the request is wrong), 401 (no key, or one that is not known), 403 (a key that may not do
// that, or a page of another site), 404 (no such run), 409 (the state of the run does not allow it, or its files are
// not here), 429 (too many searches at once) or 503 (the bus does not answer, or the head starts).
//
// The events, each with JSON in one data line:
//
//	state      Overview: first at once, then at most once a second while something changes
//	run        RunDetail of ?run=ID: first at once, then when the output is synced, and every 5 s while the run works
//	gone       Error: the run of ?run=ID is not on the bus any more, and has no files here
//	stopping   {}: the head stops; a client connects again until another head answers
//
// A comment line comes every 15 s while nothing changes. After a break, a client connects again after 2 s (retry) and
// gets the whole state first, so it needs nothing of what it missed. A stream that is refused has the status of the
// table above; EventSource does not connect again then, and a script asks /page/api/session what is the matter.
package page
