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

// Faults are the faults of a server, by name, with the probability of each.
//
//	429         too many requests, with Retry-After: 0 (vLLM behind a proxy)
//	500         an error object
//	503         an error object, as that of the flavour's full queue
//	529         overloaded (NVIDIA Dynamo)
//	reset       the connection is reset before an answer
//	truncated   half of the answer, then the connection is closed
//	hang        no answer until the client gives up
//	html        502 with an HTML page, as a proxy gives
//	garbage     200 with a body that is not JSON
//	empty       200 without a body
//	nochoices   200 with an answer that has no choices
//	abort       200 with an answer that was aborted (SGLang)
//	401         the key is wrong: final if others get through
//	login       200 with a page that asks to sign in: as 401
//	unsupported 501, a feature that the server was not started with: as 401
//	context     400, the prompt is too long: final, must not be tried again
type Faults map[string]float64

// cured are the faults that a retry cures, except for the hang.
var cured = []string{"429", "500", "503", "529", "reset", "truncated", "html", "garbage", "empty", "nochoices", "abort"}

// FaultNames are the names of all faults.
var FaultNames = append(slices.Clone(cured), "hang", "401", "context", "login", "unsupported")

// ParseFaults parses faults such as "429=0.05,reset=0.01". "all=0.1" shares the rate among the
// faults that a retry cures, except for the hang.
func ParseFaults(s string) (Faults, error) {
	faults := Faults{}
	if s == "" {
		return faults, nil
	}

	total := 0.0
	for part := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		rate, err := strconv.ParseFloat(value, 64)
		if err != nil || !(rate >= 0 && rate <= 1) { // also refuses NaN
			return nil, fmt.Errorf("fault %q: want NAME=RATE with a rate from 0 to 1", part)
		}

		total += rate
		if name == "all" {
			for _, each := range cured {
				faults[each] += rate / float64(len(cured))
			}
			continue
		}

		if !slices.Contains(FaultNames, name) {
			return nil, fmt.Errorf("fault %q: known are all, %s", name, strings.Join(FaultNames, ", "))
		}

		faults[name] += rate
	}

	if total > 1 {
		return nil, fmt.Errorf("faults %q: the rates add up to more than 1", s)
	}

	return faults, nil
}

// pick draws a fault or "". Faults have the order of FaultNames, so that a seed always draws
// the same ones.
func (f Faults) pick(r *rand.Rand) string {
	if len(f) == 0 {
		return ""
	}

	x := r.Float64()
	for _, name := range FaultNames {
		if x < f[name] {
			return name
		}
		x -= f[name]
	}

	return ""
}

// injectFault answers with a fault. Truncation is not one of these: it needs the answer.
func (s *Server) injectFault(fault string, w http.ResponseWriter, r *http.Request, req request) {
	switch fault {
	case "429":
		w.Header().Set("Retry-After", "0")
		s.respond.refuse(w, http.StatusTooManyRequests, "rate_limit_exceeded", "too many requests")
	case "500":
		s.respond.refuse(w, http.StatusInternalServerError, "InternalServerError", "simulated fault")
	case "503":
		s.respond.refuseBusy(w)
	case "529":
		s.respond.refuse(w, 529, "overloaded", "all workers are busy")
	case "reset":
		resetConnection()
	case "hang":
		select {
		case <-r.Context().Done():
		case <-s.died:
			resetConnection()
		}
	case "html":
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n")
	case "garbage":
		fmt.Fprint(w, `{"id": "chatcmpl-1", "choices": [`)
	case "empty":
	case "nochoices":
		s.respond.writeJSON(w, http.StatusOK, object{
			"id":      "chatcmpl-1",
			"object":  "chat.completion",
			"model":   req.model,
			"choices": []object{},
		})
	case "abort":
		s.respond.writeJSON(w, http.StatusOK, object{
			"id":     "chatcmpl-1",
			"object": "chat.completion",
			"model":  req.model,
			"choices": []object{
				{"index": 0, "message": object{"role": "assistant", "content": ""}, "finish_reason": "abort"},
			},
		})
	case "401":
		s.respond.refuse(w, http.StatusUnauthorized, "invalid_api_key", "the key is wrong")
	case "login":
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>\n")
	case "unsupported":
		s.respond.refuse(w, http.StatusNotImplemented, "not_supported_error",
			"This server does not support it. Start it with `--it`")
	case "context":
		s.respond.refuseLength(w, s.cfg.contextLength()+5000, 0)
	}
}

// writeTruncated sends a part of an answer with the length of the whole.
func writeTruncated(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body[:len(body)/2])
	http.NewResponseController(w).Flush()
	time.Sleep(time.Millisecond) // let the part get out before the connection is cut
	resetConnection()
}
