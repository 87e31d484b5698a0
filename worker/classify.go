package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/promptmill/promptmill/proto"
)

// verdict says what follows from an attempt.
type verdict int

const (
	final  verdict = iota // the result stands, answered or refused
	retry                 // try again, if there are attempts left
	unsent                // the server was not reached; the attempt does not count
)

// judged is an attempt's result and what follows from it.
type judged struct {
	verdict verdict
	after   time.Duration // the least wait before a retry
	reason  string        // of a retry: a status or an error code
	result  proto.Result  // Status, RequestID and Body, or Err
}

// judge classifies an answer. It is the one place that decides what is tried again.
func judge(a answer, scan *proto.Scanner) judged {
	if a.err != nil {
		return judgeError(a.err)
	}
	j := judged{result: proto.Result{Status: a.status, RequestID: printable(a.header.Get("X-Request-Id")), Body: a.body}}
	problem := checkBody(scan, a.body)
	if a.status >= 200 && a.status < 300 {
		if problem != nil {
			j.verdict, j.reason = retry, proto.CodeInvalidResponse
			j.result = proto.Result{Err: &proto.ResultError{
				Code:    proto.CodeInvalidResponse,
				Message: fmt.Sprintf("status %d, %v: %s", a.status, problem, excerpt(a.body)),
			}}
			return j
		}
		j.result.Body = proto.OneLine(a.body)
		return j
	}
	if errors.Is(problem, errErrorObject) || problem == nil {
		j.result.Body = proto.OneLine(a.body)
	} else {
		j.result.Body = proto.Quote(string(a.body)) // an HTML page, a plain text, nothing
	}
	if retryable(a.status) {
		j.verdict, j.reason = retry, fmt.Sprint(a.status)
		j.after = retryAfter(a.header, time.Now())
	}
	return j
}

// retryable reports whether a status can change when the request is sent again.
// (research/peers.md 4: vLLM, SGLang and Ollama say 503 when their queue is full,
// Dynamo 529, nginx 499 when it gave up.)
func retryable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests, 499:
		return true
	}
	return status >= 500
}

func judgeError(err error) judged {
	j := judged{verdict: retry, reason: proto.CodeConnection}
	opErr, ok := errors.AsType[*net.OpError](err)
	switch {
	case ok && opErr.Op == "dial": // also when dialling took too long
		j.verdict = unsent
	case errors.Is(err, context.DeadlineExceeded):
		j.reason = proto.CodeTimeout
	}
	j.result.Err = &proto.ResultError{Code: j.reason, Message: err.Error()}
	return j
}

var errErrorObject = errors.New("the answer is an error")

// checkBody says what is wrong with the body of a good answer: it must be a whole
// JSON object that is not an error.
func checkBody(s *proto.Scanner, body []byte) error {
	isError := false
	s.Reset(body)
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "error":
			isError = string(s.Value()) != "null" || isError
		case "object":
			isError = isError || string(s.Value()) == `"error"`
		}
	}
	if err := s.End(); err != nil {
		return err
	}
	if isError {
		return errErrorObject
	}
	return nil
}

// excerpt is the beginning of an answer, for an error message.
func excerpt(body []byte) string {
	const most = 300
	if len(body) > most {
		return string(body[:most]) + "..."
	}
	return string(body)
}

// printable keeps a request id from the server only if it can stand in a line.
func printable(id string) string {
	if len(id) > 200 || !utf8.ValidString(id) {
		return ""
	}
	return id
}
