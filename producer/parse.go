package producer

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Parser turns input lines into requests. Not safe for concurrent use.
//
// A member that is null counts as missing: tables that become JSON lines have null where a row has
// no value.
type Parser struct {
	scan  jsonscan.Scanner
	model string
	// endpoint is the path of all requests; empty: each line names its own.
	endpoint string
	// override reports that the model replaces the model that a line names.
	override bool
	// asGiven reports that bodies stay as they are: the model and the fields are not added, and a line need not
	// name a model.
	asGiven bool
	// modelMember is `"model":"NAME"`.
	modelMember []byte
	set         []setMember

	// The fields up to parameters describe the body of the line that was read last.

	// names are its members that are not null.
	names []string
	// nulls are its members that are null.
	nulls []string
	// members counts names and nulls.
	members int
	// empty reports that one of the nulls is to be filled in.
	empty bool
	// inBody reports that they are the members of the line's member body.
	inBody bool
	// parameters are its sampling parameters, from the line and from set.
	parameters []member

	// short has the body of the short form that was read last, and full the body with the settings' members.
	short, full []byte

	// urlValue is the url of an earlier line, as it stood there, and url its meaning.
	urlValue, url string
}

type setMember struct {
	name string
	// member is `"name":value`.
	member []byte
	value  []byte
}

// member is one of a JSON object, with its value as it stands in the input.
type member struct {
	name  string
	value []byte
}

// NewParser returns a parser that adds the model and the fields of s to bodies that
// lack them, and the endpoint to lines. It refuses field values that are not JSON, and an unknown
// endpoint.
func NewParser(s proto.Settings) (*Parser, error) {
	if s.Endpoint != "" && !slices.Contains(proto.Endpoints, s.Endpoint) {
		return nil, fmt.Errorf("the endpoint %q is none of %q", s.Endpoint, proto.Endpoints)
	}

	p := &Parser{model: s.Model, endpoint: s.Endpoint}
	if s.OverrideModel != "" {
		p.model, p.override = s.OverrideModel, true
	}

	p.modelMember = append([]byte(`"model":`), jsonscan.Quote(p.model)...)
	for name, value := range s.Set {
		if name == "model" || name == "stream" {
			return nil, fmt.Errorf("set %s: the model has a setting of its own, and answers cannot be streamed", name)
		}

		if !jsontext.Value(value).IsValid() || strings.ContainsAny(value, "\r\n") {
			return nil, fmt.Errorf("set %s: %q is not JSON on one line", name, value)
		}

		member := append(append(jsonscan.Quote(name), ':'), value...)
		p.set = append(p.set, setMember{name, member, []byte(value)})
	}

	slices.SortFunc(p.set, func(a, b setMember) int { return strings.Compare(a.name, b.name) })

	return p, nil
}

// lineFields are the members of one line that do not only concern the model server. Values are
// JSON; nil if absent.
type lineFields struct {
	customID, method, url []byte
	// body is nil in a short form.
	body []byte
	// rest has the members of a short form that make its body.
	rest                      [][]byte
	model, stream, background []byte
}

// Parse reads one line. The request's parts are valid until the next call, and may point into line.
// model is the model that shall
// answer. After an error the request still has its custom_id, if the line names one.
func (p *Parser) Parse(line []byte) (r proto.Request, model string, err *LineError) {
	if cap(p.short)+cap(p.full) > 2<<20 {
		p.short, p.full = nil, nil // one long line does not cost its memory for the rest of the run
	}

	f, err := p.scanLine(line)
	r.CustomID, err = f.findID(err)
	if err != nil {
		return r, "", err
	}

	if f.method != nil && !strings.EqualFold(string(jsonscan.Text(f.method)), "POST") {
		return r, "", newLineError(FaultMethod, f.method)
	}

	if r.URL, err = p.findEndpoint(line, f); err != nil {
		return r, "", err
	}

	if need := payloadOf[r.URL]; need != "" && !p.hasMember(need) {
		return r, "", &LineError{
			Fault:   FaultPayload,
			Subject: fmt.Sprintf("%q, which %s", need, r.URL),
			Param:   need,
		}
	}

	switch {
	case isTrue(f.stream):
		return r, "", &LineError{Fault: FaultStream}
	case isTrue(f.background):
		return r, "", &LineError{Fault: FaultBackground}
	}

	r.Body = f.body
	if r.Body == nil {
		p.short = append(p.short[:0], '{')
		for i, member := range f.rest {
			if i > 0 {
				p.short = append(p.short, ',')
			}
			p.short = append(p.short, member...)
		}
		p.short = append(p.short, '}')
		r.Body = p.short
	}

	if jsonscan.TooDeep(r.Body) {
		return r, "", &LineError{Fault: FaultTooDeep}
	}

	if p.asGiven {
		return r, string(jsonscan.Text(f.model)), nil
	}

	model, r.Body, err = p.completeBody(r.Body, f.model)

	return r, model, err
}

// findID returns the custom_id by which a line is found again, whether the line is good or not,
// and the error of the line.
func (f lineFields) findID(err *LineError) ([]byte, *LineError) {
	if f.customID == nil {
		return nil, err
	}

	text, textErr := jsonscan.Unquote(f.customID)
	switch {
	case textErr == nil && len(text) > 0:
		return f.customID, err
	case err != nil:
	case f.customID[0] == '"' && textErr != nil:
		err = newLineError(FaultSurrogate, f.customID)
	default:
		err = newLineError(FaultID, f.customID)
	}

	if c := f.customID[0]; c == '-' || c >= '0' && c <= '9' {
		return jsonscan.Quote(string(f.customID)), err
	}

	return nil, err
}

// payloadOf is the body field that an endpoint cannot do without.
var payloadOf = map[string]string{
	"/v1/chat/completions": "messages",
	"/v1/completions":      "prompt",
	"/v1/embeddings":       "input",
	"/v1/rerank":           "documents",
}

// isNull reports whether a JSON value is null.
func isNull(value []byte) bool { return len(value) > 0 && value[0] == 'n' }

// isTrue reports whether a model server takes a JSON value for true. Pydantic, with which
// vLLM and SGLang read requests, takes 1 and some texts as well.
func isTrue(value []byte) bool {
	text := jsonscan.Text(value)
	if text == nil {
		text = value
	}

	switch strings.ToLower(string(text)) {
	case "true", "t", "yes", "y", "on", "1", "1.0":
		return true
	}

	return false
}

func (p *Parser) scanLine(line []byte) (f lineFields, err *LineError) {
	twice, nullBody := "", false
	take := func(field *[]byte) {
		if *field != nil {
			twice = string(p.scan.Name())
		}
		if value := p.scan.Value(); *field == nil || !isNull(value) {
			*field = value
		}
	}
	defer f.dropNulls()

	p.resetMembers()
	p.inBody = false
	s := &p.scan
	s.Reset(line)

	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "custom_id":
			take(&f.customID)
		case "method":
			take(&f.method)
		case "url":
			take(&f.url)
		case "body":
			if f.body != nil || nullBody {
				twice = "body"
			}

			switch s.Kind() {
			case '{':
			case 'n':
				s.Value()
				nullBody = true
				continue
			default:
				if value := s.Value(); value != nil {
					return f, newLineError(FaultBody, value)
				}
				return f, newSyntaxError(line, s.End())
			}

			start := s.Enter()
			f.model, f.stream, f.background = nil, nil, nil // members beside the body are not its own

			for p.resetMembers(); s.Next(); {
				p.bodyMember(&f)
			}

			f.body = line[start:s.Offset()]
			p.inBody = true
		default:
			if f.body == nil {
				p.bodyMember(&f)
				f.rest = append(f.rest, s.Member())
			}
		}
	}

	if err := s.End(); err != nil {
		return f, newSyntaxError(line, err)
	}

	if twice == "" {
		twice = p.repeatedMember()
	}

	if twice != "" {
		return f, &LineError{
			Fault:   FaultRepeated,
			Subject: twice,
			Param:   twice,
		}
	}

	return f, nil
}

// looksLikeRequest reports whether a line is an object with a member that only requests have.
func (p *Parser) looksLikeRequest(line []byte) bool {
	f, err := p.scanLine(line)
	return err == nil && (f.url != nil || f.body != nil ||
		slices.ContainsFunc(shortForms, func(s shortForm) bool { return p.hasMember(s.member) }))
}

// dropNulls removes the members beside the body that are null.
func (f *lineFields) dropNulls() {
	for _, field := range []*[]byte{&f.customID, &f.method, &f.url} {
		if isNull(*field) {
			*field = nil
		}
	}
}

// resetMembers drops the members noted so far.
func (p *Parser) resetMembers() {
	p.names, p.nulls, p.parameters, p.members, p.empty = p.names[:0], p.nulls[:0], p.parameters[:0], 0, false
}

// bodyMember notes a member of the body.
func (p *Parser) bodyMember(f *lineFields) {
	p.members++
	name := string(p.scan.Name())
	if p.scan.Kind() == 'n' || p.override && name == "model" {
		p.empty = p.empty || p.settingFor(name) != nil
		if isNull(p.scan.Value()) {
			p.nulls = append(p.nulls, name)
		}
		return
	}

	p.names = append(p.names, name)
	switch value := p.scan.Value(); name {
	case "model":
		f.model = value
	case "stream":
		f.stream = value
	case "background":
		f.background = value
	default:
		if isParameter(name) {
			p.noteParameter(name, value)
		}
	}
}

// settingFor returns the value of the settings for a member of the body, nil if there is none.
func (p *Parser) settingFor(name string) []byte {
	if name == "model" && p.model != "" {
		return p.modelMember[len(`"model":`):]
	}

	for _, field := range p.set {
		if field.name == name {
			return field.value
		}
	}

	return nil
}

// hasMember reports whether the body of the line read last has a member called name.
func (p *Parser) hasMember(name string) bool { return slices.Contains(p.names, name) }

// repeatedMember returns a decisive member of the body that is there twice, be it null: JSON
// readers do not agree which of the two counts (RFC 8259, 4). The server reads all other members.
func (p *Parser) repeatedMember() string {
	for i, name := range p.names {
		if isDecisive(name) && (slices.Contains(p.names[i+1:], name) || slices.Contains(p.nulls, name)) {
			return name
		}
	}

	for i, name := range p.nulls {
		if isDecisive(name) && slices.Contains(p.nulls[i+1:], name) {
			return name
		}
	}

	return ""
}

// isDecisive reports whether a member of the body decides the request or its destination.
func isDecisive(name string) bool {
	switch name {
	case "model", "stream", "background", "messages", "prompt", "input", "documents":
		return true
	}
	return false
}

// findEndpoint returns the path that the line names: by its url, or by its short form.
func (p *Parser) findEndpoint(line []byte, f lineFields) (string, *LineError) {
	if f.url != nil && f.body == nil && f.rest == nil {
		return "", &LineError{Fault: FaultNoBody}
	}

	if f.url != nil {
		if string(f.url) == p.urlValue {
			return p.url, nil
		}

		url := endpointOf(string(jsonscan.Text(f.url)))
		if url == "" {
			return "", newURLError(f.url)
		}

		if p.endpoint != "" && url != p.endpoint {
			return "", p.newEndpointError("url", "its url is "+url)
		}

		p.urlValue, p.url = string(f.url), url // most lines have the same

		return url, nil
	}

	switch {
	case f.body != nil && p.endpoint != "":
		return p.endpoint, nil
	case f.body != nil:
		return "", &LineError{Fault: FaultNoURL}
	case p.endpoint != "":
		return p.endpoint, p.checkShortForm(line, f)
	}

	for _, short := range shortForms {
		if p.hasMember(short.member) {
			return short.url, nil
		}
	}

	return "", p.newNoRequestError(line, f)
}

// checkShortForm returns the error of a line without url and body that is no body for the endpoint of
// the settings.
func (p *Parser) checkShortForm(line []byte, f lineFields) *LineError {
	switch {
	case p.hasMember(payloadOf[p.endpoint]):
		return nil
	case len(p.names) == 0, p.isAnswer(f), p.isAnthropic(f):
		return p.newNoRequestError(line, f)
	}

	for _, short := range shortForms {
		// Responses have "input" and "prompt" too.
		if p.hasMember(short.member) && (p.endpoint != "/v1/responses" || short.member == "messages") {
			return p.newEndpointError(short.member, fmt.Sprintf("it has %q, as for %s", short.member, short.url))
		}
	}

	return nil
}

// newEndpointError returns the error of a line for another endpoint than that of the settings. why says
// how the line means it, by a member.
func (p *Parser) newEndpointError(member, why string) *LineError {
	return &LineError{
		Fault:  FaultEndpoint,
		Param:  member,
		Detail: why + ", but the batch's endpoint is " + p.endpoint,
	}
}

// newNoRequestError returns the error of an object without any member of a request.
func (p *Parser) newNoRequestError(line []byte, f lineFields) *LineError {
	switch {
	case p.isAnswer(f):
		return &LineError{Fault: FaultOutputLine}
	case p.isAnthropic(f):
		return &LineError{Fault: FaultAnthropic}
	case len(p.names) == 0:
		return &LineError{Fault: FaultNoRequest}
	}

	const most = 5
	names := p.names[:min(len(p.names), most)]
	err := &LineError{
		Fault:  FaultNoRequest,
		Detail: excerpt([]byte(`it has "`+strings.Join(names, `", "`)+`"`), 100),
	}

	s := &p.scan
	s.Reset(line)

	for s.Enter(); s.Next(); {
		if s.Kind() == '"' {
			err.Texts = append(err.Texts, string(s.Name()))
		}
	}

	return err
}

// isAnswer reports whether a line without a request is one of an output.
func (p *Parser) isAnswer(f lineFields) bool {
	return f.customID != nil && (p.hasMember("response") || p.hasMember("result"))
}

// isAnthropic reports whether a line without a request is one of a batch of Anthropic's API.
func (p *Parser) isAnthropic(f lineFields) bool { return f.customID != nil && p.hasMember("params") }

// meantEndpoints are the endpoints that wrong urls mean, by a part of the url.
var meantEndpoints = []struct{ part, url string }{
	{"chat", "/v1/chat/completions"},
	{"message", "/v1/chat/completions"},
	{"completion", "/v1/completions"},
	{"generate", "/v1/completions"},
	{"embed", "/v1/embeddings"},
	{"response", "/v1/responses"},
	{"rerank", "/v1/rerank"},
	{"score", "/v1/score"},
}

// newURLError returns the error of a line with an unknown url.
func newURLError(url []byte) *LineError {
	err := newLineError(FaultURL, url)
	text := strings.ToLower(string(url))
	for _, m := range meantEndpoints {
		if strings.Contains(text, m.part) {
			err.Detail += ", did you mean " + m.url + "?"
			break
		}
	}

	return err
}

// shortForm is a member that makes a line the body of a request for a url.
type shortForm struct{ member, url string }

var shortForms = []shortForm{
	{"messages", "/v1/chat/completions"},
	{"prompt", "/v1/completions"},
	{"input", "/v1/embeddings"},
}

// endpointOf returns the endpoint that a url names, "" if none. Azure's batch files have paths
// without a version, vLLM's take /score and /v2/rerank, others name a whole URL. The url does not
// decide which server gets the request.
func endpointOf(url string) string {
	if slices.Contains(proto.Endpoints, url) {
		return url
	}

	if _, after, ok := strings.Cut(url, "://"); ok {
		_, path, _ := strings.Cut(after, "/")
		url = "/" + path
	}

	url, _, _ = strings.Cut(url, "?")
	parts := urlPath.FindStringSubmatch(strings.TrimRight(url, "/"))
	if parts == nil {
		return ""
	}

	return "/v1/" + parts[1]
}

// urlPath is a path that ends in an endpoint, behind a version, Azure's "openai" or one of
// its deployments, or nothing: /v1/fim/completions is another endpoint.
var urlPath = regexp.MustCompile(`^(?:(?:/.*)?/(?:v[0-9][0-9a-z]*|openai|deployments/[^/]+))?/+(chat/completions|completions|embeddings|responses|rerank|score)$`)

// completeBody adds the settings' model and fields to a body that lacks them, right
// after its brace or in the place of their nulls, and returns the body's model. All else
// stays byte for byte.
func (p *Parser) completeBody(body, model []byte) (string, []byte, *LineError) {
	var add [][]byte
	if p.empty {
		body = p.fillNulls(body)
	}

	if model == nil {
		if p.model == "" {
			return "", nil, &LineError{Fault: FaultNoModel}
		}

		if !p.hasMember("model") {
			add = append(add, p.modelMember)
		}

		model = jsonscan.Quote(p.model)
	}

	name, err := jsonscan.Unquote(model)
	if err != nil || len(name) == 0 {
		return "", nil, newLineError(FaultModel, model)
	}

	for _, field := range p.set {
		if !p.hasMember(field.name) {
			add = append(add, field.member)
			if isParameter(field.name) {
				p.noteParameter(field.name, field.value)
			}
		}
	}

	if len(add) == 0 {
		return string(name), body, nil
	}

	p.full = append(p.full[:0], '{')
	for i, member := range add {
		if i > 0 {
			p.full = append(p.full, ',')
		}
		p.full = append(p.full, member...)
	}
	if p.members > 0 {
		p.full = append(p.full, ',')
	}
	p.full = append(p.full, body[1:]...)

	return string(name), p.full, nil
}

// fillNulls puts the settings' values in the place of the body's nulls, and of a model that does
// not count, and notes that they are there.
func (p *Parser) fillNulls(body []byte) (full []byte) {
	from, missing := 0, len(p.names)
	s := &p.scan
	s.Reset(body)

	for s.Enter(); s.Next(); {
		name := string(s.Name())
		value := p.settingFor(name)
		if value == nil || s.Kind() != 'n' && !(p.override && name == "model") ||
			slices.Contains(p.names[:missing], name) {
			continue
		}

		null := s.Value()
		full = append(full, body[from:s.Offset()-len(null)]...)
		full = append(full, value...)
		from = s.Offset()
		p.names = append(p.names, name)

		if isParameter(name) {
			p.noteParameter(name, value)
		}
	}

	return append(full, body[from:]...)
}
