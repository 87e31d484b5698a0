package batchapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// maxJSON is the most bytes of a JSON body, without the requests of a batch.
const maxJSON = 1 << 20

// createBatchBody is the body that creates a batch. Members that are unknown are ignored.
type createBatchBody struct {
	_ struct{} `additionalProperties:"true"`

	InputFileID      string            `json:"input_file_id,omitempty" doc:"The file of requests, if requests is absent."`
	Requests         []inlineRequest   `json:"requests,omitempty" doc:"The requests, in place of a file."`
	Endpoint         string            `json:"endpoint,omitempty" doc:"The path of all requests: /v1/chat/completions."`
	CompletionWindow string            `json:"completion_window,omitempty" default:"24h" doc:"The time for the batch."`
	Model            string            `json:"model,omitempty" doc:"The model of requests that name none."`
	Metadata         map[string]string `json:"metadata,omitempty" nullable:"true"`
	OutputExpires    *expiresAfter     `json:"output_expires_after,omitempty"`
}

// inlineRequest is a request in the body that creates a batch.
type inlineRequest struct {
	_ struct{} `additionalProperties:"true"`

	CustomID string         `json:"custom_id,omitempty" doc:"Defaults to request- and the number of the request."`
	Method   string         `json:"method,omitempty" enum:"POST"`
	URL      string         `json:"url,omitempty" doc:"Defaults to endpoint."`
	Body     map[string]any `json:"body,omitempty" doc:"What the model server gets, byte for byte."`
	Params   map[string]any `json:"params,omitempty" doc:"Another name of body."`
}

// expiresAfter is the time after which files expire.
type expiresAfter struct {
	Anchor  string `json:"anchor" enum:"created_at"`
	Seconds int64  `json:"seconds" minimum:"3600" maximum:"2592000"`
}

// bodyDecoder reads the JSON object of a body as it comes.
type bodyDecoder struct {
	*jsontext.Decoder

	source *budgetReader
}

// newBodyDecoder returns a decoder of a body with at most maxJSON bytes. Names that are there twice and text
// that is no Unicode, such as half of a surrogate pair, are the business of the model server if they are
// in the body of a request.
func newBodyDecoder(body io.Reader) *bodyDecoder {
	source := &budgetReader{Reader: body, left: maxJSON, empty: true}
	decoder := jsontext.NewDecoder(source, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

	return &bodyDecoder{decoder, source}
}

// readMembers reads the object of a body into fields, which has pointers by the names of members.
// Members of other names are ignored, unless readOther reads their value. It may be nil.
func (d *bodyDecoder) readMembers(fields map[string]any, readOther func(name string) error) error {
	token, err := d.ReadToken()
	switch {
	case err != nil:
		return d.describeError(err)
	case token.Kind() != '{':
		return refuse("", "The body is %s, and must be a JSON object.", describeKind(token.Kind()))
	}

	seen := map[string]bool{}
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return d.describeError(err)
		}

		name := token.String()
		if seen[name] {
			return refuse(name, "The member %s is there twice.", name)
		}
		seen[name] = true

		before := d.InputOffset()
		if readOther != nil {
			err = readOther(name)
		}

		if err == nil && d.InputOffset() == before { // nothing has read the value
			err = d.readField(name, fields[name])
		}
		if err != nil {
			return d.describeError(err)
		}
	}

	if _, err := d.ReadToken(); err != nil {
		return d.describeError(err)
	}

	switch _, err := d.ReadToken(); {
	case err == nil:
		return refuse("", "The body has more than one JSON object.")
	case !errors.Is(err, io.EOF):
		return d.describeError(err)
	}

	return nil
}

// readField reads the value of a member into a field, or checks it alone if field is nil. Unlike the
// decoder, it takes no text that is no Unicode.
func (d *bodyDecoder) readField(name string, field any) error {
	value, err := d.ReadValue()
	if err != nil {
		return err
	}

	if field == nil {
		field = new(jsontext.Value)
	}

	err = json.Unmarshal(value, field, jsontext.AllowDuplicateNames(true))
	if wrong, ok := errors.AsType[*json.SemanticError](err); ok {
		wrong.JSONPointer = jsontext.Pointer("").AppendToken(name) + wrong.JSONPointer
	}
	if wrong, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		wrong.ByteOffset += d.InputOffset() - int64(len(value))
	}

	return err
}

// describeError returns the error of a body for the client.
func (d *bodyDecoder) describeError(err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}

	if wrong, ok := errors.AsType[*json.SemanticError](err); ok {
		param := describePointer(wrong.JSONPointer)
		return refuse(param, "The member %s is %s, and must be %s.", param, describeKind(wrong.JSONKind),
			describeGoKind(wrong.GoType))
	}

	if errors.Is(err, errTooLong) {
		return newFailure(http.StatusRequestEntityTooLarge, "", "",
			"The body is longer than %d MiB: send requests in the member requests, or as a file.", maxJSON>>20)
	}

	if wrong, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if !isCutOff(err) {
			return refuse("", "The body is no JSON: the fault is at byte %d.", wrong.ByteOffset)
		}
	}

	switch {
	case isCutOff(err) && d.source.ended && d.source.empty:
		return refuse("", "The body is empty: send a JSON object.")
	case isCutOff(err) && d.source.ended:
		return refuse("", "The body is no JSON: it ends before its object does.")
	case isCutOff(err):
		return refuse("", "The body ends in the middle, and nothing was created: send it again.")
	}

	return err
}

// describePointer returns a place in a body as people write it: requests[3].custom_id.
func describePointer(p jsontext.Pointer) string {
	var text strings.Builder
	for token := range p.Tokens() {
		switch {
		case strings.Trim(token, "0123456789") == "":
			text.WriteString("[" + token + "]")
		case text.Len() == 0:
			text.WriteString(token)
		default:
			text.WriteString("." + token)
		}
	}

	return text.String()
}

// describeKind names a kind of JSON value.
func describeKind(kind jsontext.Kind) string {
	switch kind {
	case 'n':
		return "null"
	case 't', 'f':
		return "true or false"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '{':
		return "an object"
	case '[':
		return "an array"
	}

	return "no JSON"
}

// describeGoKind names the JSON value that a type is read from.
func describeGoKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Int64:
		return "a whole number"
	case reflect.Slice:
		return "an array"
	}

	return "an object"
}

// budgetReader fails with errTooLong when it has read as many bytes as it may.
type budgetReader struct {
	io.Reader

	left int64
	// empty reports that no byte was read, and ended that the body has come whole.
	empty, ended bool
	// enlarge is called when a request has more than maxJSON bytes. Nil: there are no requests.
	enlarge func() error
}

// errTooLong is the error of a body that is too long.
var errTooLong = errors.New("the body is too long")

// Read implements io.Reader.
func (r *budgetReader) Read(p []byte) (int, error) {
	if r.left < 0 {
		return 0, errTooLong
	}

	n, err := r.Reader.Read(p)
	r.left -= int64(n)
	r.empty = r.empty && n == 0
	r.ended = err == io.EOF // a wrapped one is a body that was cut off
	if r.enlarge != nil && r.left < jsonl.MaxLine-maxJSON {
		if err := r.enlarge(); err != nil {
			return 0, err
		}
		r.enlarge = nil
	}

	return n, err
}

// requestLines turns the array of requests in a body into lines, while it is read. It copies no request, which
// may be large: a line is read out of the decoder's buffer.
type requestLines struct {
	decoder  *bodyDecoder
	endpoint string

	count int
	// line has the rest of the line that is being read, whose last piece is its end. It is valid until the
	// decoder reads on.
	line    [][]byte
	compact compactor
	err     error
}

// Read implements io.Reader.
func (l *requestLines) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(l.line) == 0 && (n > 0 || l.err != nil) {
			break
		}
		if len(l.line) == 0 {
			l.line, l.err = l.nextLine()
			continue
		}

		var written, read int
		if len(l.line) > 1 {
			written, read = l.compact.copyText(p[n:], l.line[0])
		} else {
			written = copy(p[n:], l.line[0])
			read = written
		}

		n += written
		if l.line[0] = l.line[0][read:]; len(l.line[0]) == 0 {
			l.line = l.line[1:]
		}
	}

	if n > 0 {
		return n, nil
	}

	return 0, l.err
}

// compactor copies JSON without the white space between its tokens.
type compactor struct{ inString, escaped bool }

// copyText copies until it has read or filled all.
func (c *compactor) copyText(to, from []byte) (written, read int) {
	for written < len(to) && read < len(from) {
		b := from[read]
		read++

		switch {
		case c.escaped:
			c.escaped = false
		case b == '\\':
			c.escaped = true
		case b == '"':
			c.inString = !c.inString
		case !c.inString && (b == ' ' || b == '\t' || b == '\n' || b == '\r'):
			continue
		}

		to[written] = b
		written++
	}

	return written, read
}

// nextLine returns the line of the next request, or io.EOF.
func (l *requestLines) nextLine() ([][]byte, error) {
	d := l.decoder
	d.source.left = jsonl.MaxLine // for this request; a longer line is refused anyway

	if d.PeekKind() == ']' {
		if _, err := d.ReadToken(); err != nil {
			return nil, d.describeError(err)
		}
		return nil, io.EOF
	}

	where := fmt.Sprintf("requests[%d]", l.count)
	value, err := d.ReadValue()
	switch {
	case errors.Is(err, errTooLong):
		return nil, newFailure(http.StatusRequestEntityTooLarge, where, "", "The request %s is longer than %d MiB.",
			where, jsonl.MaxLine>>20)
	case err != nil:
		return nil, d.describeError(err)
	}
	l.count++

	return formatLine(value, where, l.endpoint)
}

// formatLine returns the line of a request, in pieces. Its body stays as the client wrote it, except for the
// white space between tokens, which is dropped later.
func formatLine(value jsontext.Value, where, endpoint string) ([][]byte, error) {
	if kind := value.Kind(); kind != '{' {
		return nil, refuse(where, "The request %s is %s, and must be an object with custom_id and body.", where,
			describeKind(kind))
	}

	members, err := splitRequest(value, where)
	if err != nil {
		return nil, err
	}

	body, params := members["body"], members["params"]
	switch {
	case body != nil && params != nil:
		return nil, refuse(where, "The request %s has body and params, which mean the same: give one of them.", where)
	case body == nil && params == nil:
		return nil, refuse(where+".body", "The request %s has no body.", where)
	case body == nil:
		members["body"] = params
	}

	if members["method"] == nil {
		members["method"] = jsontext.Value(`"POST"`)
	}
	if members["url"] == nil && endpoint != "" {
		members["url"], _ = jsontext.AppendQuote(nil, endpoint) // an endpoint that was decoded is valid
	}

	var line [][]byte
	before := "{"
	for _, name := range []string{"custom_id", "method", "url", "body"} {
		if members[name] != nil {
			line = append(line, fmt.Appendf(nil, "%s%q:", before, name), members[name])
			before = ","
		}
	}

	return append(line, []byte("}\n")), nil
}

// splitRequest returns the members of a request, as parts of value. Null is as good as no member.
func splitRequest(value jsontext.Value, where string) (map[string]jsontext.Value, error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(value), // a Buffer is not copied
		jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	unreadable := refuse(where, "The request %s is no JSON.", where)

	if _, err := d.ReadToken(); err != nil {
		return nil, unreadable
	}

	members := map[string]jsontext.Value{}
	for d.PeekKind() == '"' {
		token, err := d.ReadToken()
		if err != nil {
			return nil, unreadable
		}
		name := token.String()

		member, err := d.ReadValue()
		switch {
		case err != nil:
			return nil, unreadable
		case members[name] != nil:
			return nil, refuse(where, "The request %s has the member %s twice.", where, name)
		case member.Kind() != 'n':
			end := d.InputOffset()
			members[name] = value[end-int64(len(member)) : end]
		}
	}

	return members, nil
}

// readCreateBatch reads the body that creates a batch. store puts the requests of the body into a
// file; its result is nil if the body has none.
//
// enlarge is called once before a request takes more than maxJSON bytes of memory.
func readCreateBatch(
	body io.Reader, enlarge func() error, store func(io.Reader) (*filestore.Pending, error),
) (fields createBatchBody, requests *filestore.Pending, err error) {
	d := newBodyDecoder(body)
	var metadata map[string]*string // a text that is null becomes an empty one otherwise

	defer func() {
		if err != nil && requests != nil {
			requests.Abort()
		}
	}()

	err = d.readMembers(map[string]any{
		"input_file_id":        &fields.InputFileID,
		"endpoint":             &fields.Endpoint,
		"completion_window":    &fields.CompletionWindow,
		"model":                &fields.Model,
		"metadata":             &metadata,
		"output_expires_after": &fields.OutputExpires,
	}, func(name string) error {
		if name == "requests" {
			requests, err = readRequests(d, fields.Endpoint, enlarge, store)
		}
		return err
	})
	if err == nil {
		fields.Metadata, err = checkTexts("metadata", metadata)
	}

	return fields, requests, err
}

// checkTexts returns the texts of a member, or an error if one is null.
func checkTexts(member string, values map[string]*string) (map[string]string, error) {
	if values == nil {
		return nil, nil
	}

	texts := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if values[name] == nil {
			param := member + "." + name
			return nil, refuse(param, "The member %s is null, and must be a string.", param)
		}
		texts[name] = *values[name]
	}

	return texts, nil
}

// readRequests stores the array of requests as a file of lines. Null is as good as no member.
func readRequests(
	d *bodyDecoder, endpoint string, enlarge func() error, store func(io.Reader) (*filestore.Pending, error),
) (*filestore.Pending, error) {
	token, err := d.ReadToken()
	switch {
	case err != nil:
		return nil, err
	case token.Kind() == 'n':
		return nil, nil
	case token.Kind() != '[':
		return nil, refuse("requests", "The member requests is %s, and must be an array.", describeKind(token.Kind()))
	}

	d.source.enlarge = enlarge
	lines := &requestLines{decoder: d, endpoint: endpoint}
	pending, err := store(lines)
	d.source.left, d.source.enlarge = maxJSON, nil
	switch {
	case err != nil:
		return nil, err
	case lines.count == 0:
		pending.Abort()
		return nil, refuse("requests", "The array requests is empty: a batch needs at least one request.")
	}

	return pending, nil
}
