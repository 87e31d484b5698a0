package worker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/worker/answer"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// verdict says what follows from an attempt.
type verdict int

const (
	final   verdict = iota // the result stands, answered or refused
	retry                  // try again, if there are attempts left
	unsent                 // the server was not reached; the attempt does not count
	barred                 // it may mean all requests; what becomes of others decides
	loading                // the server loads the model, or another in its place; the attempt does not count
)

// classification is an attempt's result and what follows from it.
type classification struct {
	verdict  verdict
	after    time.Duration  // the least wait before a retry
	reason   string         // of a retry: a status or an error code
	crash    bool           // the server may have died of it
	ours     bool           // this process has no room for another connection
	overload bool           // the server refused it because it has too many
	cut      bool           // something in front of the server may have cut it off
	work     float64        // what the server produced, in tokens
	content  answer.Content // of a good answer
	location string         // that a redirect names
	fix      string         // of a refusal that may be of all requests, if its status does not say it
	// page is what a page or a text says that came with a good status: a login, a notice of
	// maintenance. It may mean all requests; if not, it is tried again.
	page string
	// malformed is why an answer that came whole is no JSON. Another try that gives the same
	// will go on giving it: a logprob of -Infinity, a byte that is not UTF-8.
	malformed string
	result    proto.Result // Status, RequestID and Body, or Err, or all of them
}

// ok reports whether the result is an answer.
func (j classification) ok() bool {
	return j.result.Err == nil && j.result.Status >= 200 && j.result.Status < 300
}

// mayMeanAll reports whether the server may answer all requests so.
func (j classification) mayMeanAll() bool { return j.verdict == barred || j.page != "" }

// classify classifies an answer of an endpoint to a request's body. It is the one place that
// decides what is tried again.
func classify(endpoint string, request []byte, a modelserver.Answer) classification {
	if errors.Is(a.Err, modelserver.ErrTooLong) && a.Status >= 300 { // the status is worth more than its body
		a.Body, a.Err = []byte(a.Err.Error()), nil
	}

	if a.Err != nil {
		return classifyError(a)
	}

	if a.Status < 100 || a.Status > 599 {
		return classifyBadStatus(a)
	}

	a.Body = bytes.TrimPrefix(a.Body, byteOrderMark)
	j := classification{result: proto.Result{Status: a.Status, RequestID: printable(a.Header.Get("X-Request-Id"))}}
	content, problem := answer.Read(endpoint, request, a.Body)
	if a.Status >= 200 && a.Status < 300 {
		return j.classifyAnswer(a, content, problem)
	}

	if body := proto.OneLine(bytes.Clone(a.Body)); problem == nil && bytes.HasPrefix(body, []byte("{")) {
		j.result.Body = body
	} else {
		j.result.Body = makeErrorObject(a.Status, a.Body)
	}

	r := findRuling(a.Status, a.Body)
	if j.verdict = r.verdict; j.verdict == final {
		return j
	}

	j.reason = strconv.Itoa(a.Status)
	switch j.verdict {
	case loading:
		j.after = retryAfter(a.Header, time.Now())
	case barred:
		j.location, j.fix = proto.Printable(a.Location()), r.fix
		j.overload = a.Status == http.StatusTooManyRequests // perhaps of this minute: see [Worker.settleRefusals]
		if j.after = retryAfter(a.Header, time.Now()); j.overload && j.after > 0 {
			j.verdict = retry // what has no credit left does not say when to come again
		}
	case retry:
		j.after = retryAfter(a.Header, time.Now())
		j.overload = isOverloadStatus(a.Status) || isCacheFull(a.Status, a.Body)
		// vLLM's front end answers 500 when its engine has died, and ends soon after.
		j.crash = a.Status >= 500 && !j.overload && !isTimeoutStatus(a.Status)
		j.cut = isTimeoutStatus(a.Status) || a.Status == http.StatusBadGateway
	}

	return j
}

// maxMessage is how much of a refusal that is no object its result keeps, in bytes.
const maxMessage = 4 << 10

// makeErrorObject is what stands for a refusal that is no JSON object (an HTML page of a proxy, a
// plain text, nothing), in OpenAI's form (components/schemas/Error of its OpenAPI document,
// where the code is a string): the types of its SDKs decode nothing else.
func makeErrorObject(status int, body []byte) []byte {
	text := strings.TrimSpace(string(body))
	if said, err := jsonscan.Unquote([]byte(text)); err == nil {
		text = strings.TrimSpace(string(said)) // it is a JSON string
	}

	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "..."
	}

	object := append([]byte(`{"error":{"message":`), jsonscan.Quote(cmp.Or(text, "the answer has no body"))...)
	object = append(object, `,"type":"`+proto.CodeInvalidResponse+`","param":null,"code":"`...)
	object = strconv.AppendInt(object, int64(status), 10)

	return append(object, `"}}`...)
}

// classifyBadStatus is what follows from a status that HTTP does not have (RFC 9110, 15). No result can
// carry one, so it is an error; the status line may have been garbled on its way.
func classifyBadStatus(a modelserver.Answer) classification {
	code := proto.CodeInvalidResponse
	message := fmt.Sprintf("status %03d is none of HTTP: %s", a.Status, excerpt(a.Body))
	return classification{
		verdict: retry,
		reason:  code,
		result:  proto.Result{Err: &proto.ResultError{Code: code, Message: message}},
	}
}

// byteOrderMark may stand before JSON, and is no part of it (RFC 8259, 8.1).
var byteOrderMark = []byte("\xef\xbb\xbf")

// classifyAnswer looks at what came under a good status: it must be an answer of the endpoint.
// Servers say 200 before they know how it ends.
func (j classification) classifyAnswer(a modelserver.Answer, content answer.Content, problem error) classification {
	code, page := proto.CodeInvalidResponse, ""
	switch {
	case problem != nil:
		if isWhole(a.Body) {
			j.malformed = problem.Error()
		}
		page = pageTitle(a.Body)
	case content.GaveUp:
		problem, code = errors.New(content.Problem), proto.CodeAborted
	case content.Problem != "":
		problem = errors.New(content.Problem)
	}

	if problem != nil {
		j.verdict, j.reason, j.page = retry, code, page
		j.result = proto.Result{Err: &proto.ResultError{
			Code:    code,
			Message: fmt.Sprintf("status %d, %v: %s", a.Status, problem, excerpt(a.Body)),
		}}
		return j
	}

	j.result.Body = proto.OneLine(a.Body)
	j.content = content
	// Reading a token of a prompt costs a server about a tenth of writing one.
	j.work = max(1, float64(content.CompletionTokens)+float64(content.PromptTokens)/10)

	return j
}

// isWhole reports whether a text that is no JSON was meant to be, and did not end in the
// middle.
func isWhole(body []byte) bool {
	body = bytes.TrimSpace(body)
	return len(body) > 1 && (body[0] == '{' && body[len(body)-1] == '}' || body[0] == '[' && body[len(body)-1] == ']')
}

func classifyError(a modelserver.Answer) classification {
	err := a.Err
	j := classification{verdict: retry, reason: proto.CodeConnection}
	opErr, ok := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		j.verdict, j.ours = unsent, true
	case ok && opErr.Op == "dial": // also when dialling took too long
		j.verdict = unsent
	case errors.Is(err, context.DeadlineExceeded):
		j.reason = proto.CodeTimeout
	case errors.Is(err, modelserver.ErrTooLong): // and would be again
		j.verdict, j.reason = final, ""
		j.result.Err = &proto.ResultError{Code: proto.CodeTooLarge, Message: err.Error()}
		return j
	case errors.Is(err, modelserver.ErrCoding), errors.Is(err, modelserver.ErrOutOfStep):
		j.reason = proto.CodeInvalidResponse
	default:
		j.crash = true
		j.cut = a.Status == 0 // closed before the answer began
	}

	j.result.Err = &proto.ResultError{Code: j.reason, Message: err.Error()}

	return j
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
