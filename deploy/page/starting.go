package page

import "net/http"

// startingPage is the page of a head that starts. It loads itself again, without a script.
const startingPage = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="2">
<title>promptmill is starting</title>
</head>
<body>
<h1>promptmill is starting</h1>
<p role="status">The bus is not ready yet. This page loads again every 2 seconds.</p>
</body>
</html>
`

// serveStarting answers while the bus starts: with a page for people, and with a refusal for scripts.
func serveStarting(w http.ResponseWriter, r *http.Request) {
	setHeaders(w.Header())
	if r.URL.Path != "/" {
		refuse(http.StatusServiceUnavailable, "unavailable", "The head is starting: try again in 2 seconds.").write(w)
		return
	}

	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Retry-After", "2")
	w.WriteHeader(http.StatusServiceUnavailable)
	w.Write([]byte(startingPage))
}
