package sim

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Faults that a server can be told to have, by name, with the probability of each.
//
//	429         too many requests, with Retry-After: 0 (vLLM behind a proxy)
//	500         an error object
//	503         an error object, as vLLM's and Ollama's full queue
//	reset       the connection is reset before an answer
//	truncated   half of the answer, then the connection is closed
//	hang        no answer until the client gives up
//	html        502 with an HTML page, as a proxy gives
//	garbage     200 with a body that is not JSON
//	context     400, the prompt is too long: final, must not be tried again
type Faults map[string]float64

var faultNames = []string{"429", "500", "503", "reset", "truncated", "hang", "html", "garbage", "context"}

// ParseFaults reads faults as "429=0.05,reset=0.01". "all=0.1" shares the rate among
// the faults that a retry can cure, but for the hang.
func ParseFaults(s string) (Faults, error) {
	faults := Faults{}
	if s == "" {
		return faults, nil
	}
	total := 0.0
	for part := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		rate, err := strconv.ParseFloat(value, 64)
		if err != nil || !(rate >= 0 && rate <= 1) { // so that NaN is refused too
			return nil, fmt.Errorf("fault %q: want NAME=RATE with a rate from 0 to 1", part)
		}
		total += rate
		if name == "all" {
			cured := []string{"429", "500", "503", "reset", "truncated", "html", "garbage"}
			for _, each := range cured {
				faults[each] += rate / float64(len(cured))
			}
			continue
		}
		if !slices.Contains(faultNames, name) {
			return nil, fmt.Errorf("fault %q: known are all, %s", name, strings.Join(faultNames, ", "))
		}
		faults[name] += rate
	}
	if total > 1 {
		return nil, fmt.Errorf("faults %q: the rates add up to more than 1", s)
	}
	return faults, nil
}

// draw picks a fault or "". Faults have the order of faultNames, so that a seed
// always draws the same ones.
func (f Faults) draw(r *rand.Rand) string {
	if len(f) == 0 {
		return ""
	}
	x := r.Float64()
	for _, name := range faultNames {
		if x < f[name] {
			return name
		}
		x -= f[name]
	}
	return ""
}

// commit answers with a fault. Truncation is not one of these: it needs the answer.
func commit(fault string, w http.ResponseWriter, r *http.Request) {
	switch fault {
	case "429":
		w.Header().Set("Retry-After", "0")
		writeError(w, http.StatusTooManyRequests, "rate_limit_exceeded", "too many requests")
	case "500":
		writeError(w, http.StatusInternalServerError, "InternalServerError", "simulated fault")
	case "503":
		writeError(w, http.StatusServiceUnavailable, "ServiceUnavailableError", "server busy, please try again")
	case "reset":
		panic(http.ErrAbortHandler)
	case "hang":
		<-r.Context().Done()
	case "html":
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n")
	case "garbage":
		fmt.Fprint(w, `{"id": "chatcmpl-1", "choices": [`)
	case "context":
		// The words of vLLM (vllm-project/vllm#20409).
		writeError(w, http.StatusBadRequest, "BadRequestError", "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens in the messages. Please reduce the length of the messages.")
	}
}

// truncate sends a part of an answer under the length of the whole.
func truncate(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body[:len(body)/2])
	http.NewResponseController(w).Flush()
	time.Sleep(time.Millisecond) // let the part get out before the connection is cut
	panic(http.ErrAbortHandler)
}
