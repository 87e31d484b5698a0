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
	"github.com/promptmill/promptmill/proto/openai"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// verdict is the consequence of an attempt.
type verdict int

const (
	// final: the result stands, answered or refused.
	final verdict = iota
	// retry: the request is sent again, if it has attempts left.
	retry
	// unsent: the server was not reached; the attempt does not count.
	unsent
	// barred: the refusal may mean all requests; other requests decide.
	barred
	// loading: the server is loading the model, or another in its place; the attempt does not
	// count.
	loading
)

// classification is the result of an attempt, and its consequence.
type classification struct {
	verdict verdict
	// result has a Status, a RequestID and a Body, or an Err, or all of them.
	result proto.Result
	// content is the content of a good answer.
	content openai.Answer
	// generated is the number of tokens that the answer reports to be generated, also an answer
	// that does not count.
	generated int64
	// work is the server's output, in tokens.
	work float64

	// reason is why a request is retried: a status or an error code.
	reason string
	// after is the least wait before a retry.
	after time.Duration
	// overload is true if the server refused the request since it has too many.
	overload bool
	// maybeCrash is true if the server may have died of the request.
	maybeCrash bool
	// maybeCutOff is true if something in front of the server may have cut the answer off.
	maybeCutOff bool
	// outOfFiles is true if this process may open no more connections.
	outOfFiles bool

	// location is the target of a redirect.
	location string
	// fix is the remedy for a refusal that may mean all requests, if its status does not show it.
	fix string
	// page is the text of a page that came with a good status: a login, a notice of maintenance.
	// It may mean all requests; if not, the request is retried.
	page string
	// malformed is why an answer that is complete is not JSON. If a retry gives the same, so will
	// all others: a logprob of -Infinity, a byte that is not UTF-8.
	malformed string
}

// ok reports whether the result is an answer.
func (c classification) ok() bool {
	return c.result.Err == nil && c.result.Status >= 200 && c.result.Status < 300
}

// isFromServer reports whether the server, or a proxy in front of it, has answered.
func (c classification) isFromServer() bool { return c.verdict == final || c.result.Status != 0 }

// mayMeanAll reports whether the server may answer all requests in the same way.
func (c classification) mayMeanAll() bool { return c.verdict == barred || c.page != "" }

// classify classifies an answer of an endpoint to a request's body. It alone decides which
// attempts are retried.
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
	c := classification{result: proto.Result{Status: a.Status, RequestID: printableID(a.Header.Get("X-Request-Id"))}}
	content, problem := openai.ReadAnswer(endpoint, request, a.Body)
	if a.Status >= 200 && a.Status < 300 {
		return c.classifyAnswer(a, content, problem)
	}

	return c.classifyRefusal(a, problem == nil)
}

// classifyRefusal classifies an answer whose status is no success. isJSON reports whether
// the body is JSON.
func (c classification) classifyRefusal(a modelserver.Answer, isJSON bool) classification {
	if body := proto.OneLine(bytes.Clone(a.Body)); isJSON && bytes.HasPrefix(body, []byte("{")) {
		c.result.Body = body
	} else {
		c.result.Body = makeErrorObject(a.Status, a.Body)
	}

	r := findRuling(a.Status, a.Body)
	if c.verdict = r.verdict; c.verdict == final {
		return c
	}

	c.reason = strconv.Itoa(a.Status)
	switch c.verdict {
	case loading:
		c.after = retryAfter(a.Header, time.Now())
	case barred:
		c.location, c.fix = proto.Printable(a.Location()), r.fix

		// A quota may be one of this minute: see [attemptRunner.settleRefusals].
		c.overload = a.Status == http.StatusTooManyRequests
		if c.after = retryAfter(a.Header, time.Now()); c.overload && c.after > 0 {
			c.verdict = retry // an account without credit does not say when to come again
		}
	case retry:
		c.after = retryAfter(a.Header, time.Now())
		c.overload = isOverloadStatus(a.Status) || isCacheFull(a.Status, a.Body)

		// vLLM's front end answers 500 when its engine has died, and ends soon after.
		c.maybeCrash = a.Status >= 500 && !c.overload && !isTimeoutStatus(a.Status)
		c.maybeCutOff = isTimeoutStatus(a.Status) || a.Status == http.StatusBadGateway
	}

	return c
}

// maxMessage is the length, in bytes, up to which a result keeps a refusal that is no object.
const maxMessage = 4 << 10

// makeErrorObject returns an object in place of a refusal that is no JSON object (an HTML page of
// a proxy, a plain text, nothing). It has OpenAI's form (components/schemas/Error of its OpenAPI
// document, where the code is a string), since the types of its SDKs decode nothing else.
func makeErrorObject(status int, body []byte) []byte {
	text := strings.TrimSpace(string(body))
	if unquoted, err := jsonscan.Unquote([]byte(text)); err == nil { // a JSON string
		text = strings.TrimSpace(string(unquoted))
	}

	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "..."
	}

	object := append([]byte(`{"error":{"message":`), jsonscan.Quote(cmp.Or(text, "the answer has no body"))...)
	object = append(object, `,"type":"`+proto.CodeInvalidResponse+`","param":null,"code":"`...)
	object = strconv.AppendInt(object, int64(status), 10)

	return append(object, `"}}`...)
}

// classifyBadStatus classifies an answer with a status that HTTP does not have (RFC 9110, 15). No
// result can carry one, so it is an error; the status line may have been garbled on its way.
func classifyBadStatus(a modelserver.Answer) classification {
	code := proto.CodeInvalidResponse
	message := fmt.Sprintf("status %03d is none of HTTP: %s", a.Status, excerptBody(a.Body))
	return classification{
		verdict: retry,
		reason:  code,
		result:  proto.Result{Err: &proto.ResultError{Code: code, Message: message}},
	}
}

// byteOrderMark may stand before JSON, and is no part of it (RFC 8259, 8.1).
var byteOrderMark = []byte("\xef\xbb\xbf")

// classifyAnswer classifies an answer with a good status: it must be an answer of the endpoint.
// Servers send 200 before they know how the answer ends.
func (c classification) classifyAnswer(a modelserver.Answer, content openai.Answer, problem error) classification {
	c.generated = content.Usage.Completion
	code, page := proto.CodeInvalidResponse, ""
	switch {
	case problem != nil:
		if isWhole(a.Body) {
			c.malformed = problem.Error()
		}
		page = pageTitle(a.Body)
	case content.GaveUp:
		problem, code = errors.New(content.Problem), proto.CodeAborted
	case content.Problem != "":
		problem = errors.New(content.Problem)
	}

	if problem != nil {
		c.verdict, c.reason, c.page = retry, code, page
		c.result = proto.Result{Err: &proto.ResultError{
			Code:    code,
			Message: fmt.Sprintf("status %d, %v: %s", a.Status, problem, excerptBody(a.Body)),
		}}
		return c
	}

	c.result.Body = proto.OneLine(a.Body)
	c.content = content
	// Reading a token of a prompt costs a server about a tenth of writing one.
	c.work = max(1, float64(content.Usage.Completion)+float64(content.Usage.Prompt)/10)

	return c
}

// isWhole reports whether a text that is not JSON begins and ends like JSON, and so was not cut.
func isWhole(body []byte) bool {
	body = bytes.TrimSpace(body)
	return len(body) > 1 && (body[0] == '{' && body[len(body)-1] == '}' || body[0] == '[' && body[len(body)-1] == ']')
}

// classifyError classifies an attempt that ended with an error of the HTTP client.
func classifyError(a modelserver.Answer) classification {
	err := a.Err
	c := classification{verdict: retry, reason: proto.CodeConnection}
	opErr, ok := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		c.verdict, c.outOfFiles = unsent, true
	case ok && opErr.Op == "dial": // also when dialling took too long
		c.verdict = unsent
	case errors.Is(err, context.DeadlineExceeded):
		c.reason = proto.CodeTimeout
	case errors.Is(err, modelserver.ErrTooLong): // and the next one would be, too
		c.verdict, c.reason = final, ""
		c.result.Err = &proto.ResultError{Code: proto.CodeTooLarge, Message: err.Error()}
		return c
	case errors.Is(err, modelserver.ErrCoding), errors.Is(err, modelserver.ErrOutOfStep):
		c.reason = proto.CodeInvalidResponse
	default:
		c.maybeCrash = true
		c.maybeCutOff = a.Status == 0 // closed before the answer began
	}

	c.result.Err = &proto.ResultError{Code: c.reason, Message: err.Error()}

	return c
}

// excerptBody returns the beginning of an answer, for an error message.
func excerptBody(body []byte) string {
	const most = 300
	if len(body) > most {
		return string(body[:most]) + "..."
	}
	return string(body)
}

// printableID returns a request id of the server, or "" if it is too long for a line or not UTF-8.
func printableID(id string) string {
	if len(id) > 200 || !utf8.ValidString(id) {
		return ""
	}
	return id
}
