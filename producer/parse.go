package producer

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/proto"
)

// Parser turns input lines into requests. Not safe for concurrent use.
type Parser struct {
	scan        proto.Scanner
	model       string
	modelMember []byte // `"model":"NAME"`
	set         []setField
	names       []string // the body's members in the line read last
	sampling    []member // those of them that are sampling parameters, and those set
}

type setField struct {
	name   string
	member []byte // `"name":value`
	value  []byte
}

// member is one of a JSON object, with its value as it stands in the input.
type member struct {
	name  string
	value []byte
}

// NewParser returns a parser that adds the model and the fields of s to bodies that
// lack them. It refuses field values that are not JSON.
func NewParser(s proto.Settings) (*Parser, error) {
	p := &Parser{model: s.Model, modelMember: append([]byte(`"model":`), proto.Quote(s.Model)...)}
	for name, value := range s.Set {
		if name == "model" || name == "stream" {
			return nil, fmt.Errorf("set %s: the model has a setting of its own, and answers cannot be streamed", name)
		}
		if !jsontext.Value(value).IsValid() || strings.ContainsAny(value, "\r\n") {
			return nil, fmt.Errorf("set %s: %q is not JSON on one line", name, value)
		}
		member := append(append(proto.Quote(name), ':'), value...)
		p.set = append(p.set, setField{name, member, []byte(value)})
	}
	slices.SortFunc(p.set, func(a, b setField) int { return strings.Compare(a.name, b.name) })
	return p, nil
}

// fields is what one line holds, as far as anybody but the model server cares.
type fields struct {
	customID, method, url []byte   // JSON values; nil if absent
	body                  []byte   // nil in a short form
	rest                  [][]byte // the members of a short form that make its body
	model, stream         []byte
}

// Parse reads one line. The request's parts may point into line. model is the model
// that shall answer. After an error the request still has its custom_id, if the line
// told it.
func (p *Parser) Parse(line []byte) (r proto.Request, model string, err error) {
	f, err := p.scanLine(line)
	if id, idErr := proto.Unquote(f.customID); idErr == nil && len(id) > 0 {
		r.CustomID = f.customID
	} else if err == nil && f.customID != nil {
		err = errors.New("custom_id must be a text that is not empty")
	}
	if err != nil {
		return r, "", err
	}
	if f.method != nil && string(f.method) != `"POST"` {
		return r, "", fmt.Errorf("method %s: only \"POST\" is known", f.method)
	}
	if r.URL, err = f.endpoint(); err != nil {
		return r, "", err
	}
	if need := payloadOf[r.URL]; need != "" && !p.seen(need) {
		return r, "", fmt.Errorf("%s needs a body with %q", r.URL, need)
	}
	if string(f.stream) == "true" {
		return r, "", errors.New("stream: true cannot be answered in a batch; leave it out")
	}
	r.Body = f.body
	if r.Body == nil {
		r.Body = slices.Concat([]byte("{"), bytes.Join(f.rest, []byte(",")), []byte("}"))
	}
	model, r.Body, err = p.complete(r.Body, f.model)
	return r, model, err
}

// payloadOf is the body field that an endpoint cannot do without.
var payloadOf = map[string]string{
	"/v1/chat/completions": "messages",
	"/v1/completions":      "prompt",
	"/v1/embeddings":       "input",
	"/v1/rerank":           "documents",
}

func (p *Parser) scanLine(line []byte) (fields, error) {
	var f fields
	twice := ""
	take := func(field *[]byte) {
		if *field != nil {
			twice = string(p.scan.Name())
		}
		*field = p.scan.Value()
	}
	p.forget()
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
			if f.body != nil {
				twice = "body"
			}
			if s.Kind() != '{' {
				return f, errors.New("body must be a JSON object")
			}
			start := s.Enter()
			f.model, f.stream = nil, nil // those beside the body are not its own
			for p.forget(); s.Next(); {
				p.bodyMember(&f)
			}
			f.body = line[start:s.Offset()]
		default:
			if f.body == nil {
				p.bodyMember(&f)
				f.rest = append(f.rest, s.Member())
			}
		}
	}
	if err := s.End(); err != nil {
		return f, err
	}
	if twice != "" {
		return f, fmt.Errorf("%s is there twice", twice)
	}
	return f, nil
}

// forget drops the members noted so far.
func (p *Parser) forget() { p.names, p.sampling = p.names[:0], p.sampling[:0] }

// bodyMember notes a member of the body.
func (p *Parser) bodyMember(f *fields) {
	name := string(p.scan.Name())
	p.names = append(p.names, name)
	switch value := p.scan.Value(); name {
	case "model":
		f.model = value
	case "stream":
		f.stream = value
	default:
		if isParameter(name) {
			p.noteParameter(name, value)
		}
	}
}

// seen reports whether the body of the line read last has a member called name.
func (p *Parser) seen(name string) bool { return slices.Contains(p.names, name) }

// endpoint is the path that the line asks for: its url, or what its short form means.
func (f fields) endpoint() (string, error) {
	if f.url != nil {
		url, err := proto.Unquote(f.url)
		if err != nil || !slices.Contains(proto.Endpoints, string(url)) {
			return "", fmt.Errorf("url %s: known are %s", f.url, strings.Join(proto.Endpoints, ", "))
		}
		return string(url), nil
	}
	if f.body != nil {
		return "", errors.New(`no url, such as "/v1/chat/completions"`)
	}
	for _, short := range shortForms {
		for _, member := range f.rest {
			if bytes.HasPrefix(member, []byte(short.member)) {
				return short.url, nil
			}
		}
	}
	return "", errors.New("neither a batch line (custom_id, method, url, body) nor a short form (messages, prompt or input)")
}

var shortForms = []struct{ member, url string }{
	{`"messages"`, "/v1/chat/completions"},
	{`"prompt"`, "/v1/completions"},
	{`"input"`, "/v1/embeddings"},
}

// complete adds the settings' model and fields to a body that lacks them, right
// after its brace, and returns the body's model. All else stays byte for byte.
func (p *Parser) complete(body, model []byte) (string, []byte, error) {
	var add [][]byte
	if model == nil {
		if p.model == "" {
			return "", nil, errors.New("no model: name it in the body, or for all lines with --model NAME")
		}
		add = append(add, p.modelMember)
		model = proto.Quote(p.model)
	}
	name, err := proto.Unquote(model)
	if err != nil || len(name) == 0 {
		return "", nil, fmt.Errorf("model %s: must be a text that is not empty", model)
	}
	for _, field := range p.set {
		if !p.seen(field.name) {
			add = append(add, field.member)
			if isParameter(field.name) {
				p.noteParameter(field.name, field.value)
			}
		}
	}
	if len(add) == 0 {
		return string(name), body, nil
	}
	full := append([]byte("{"), bytes.Join(add, []byte(","))...)
	if len(p.names) > 0 {
		full = append(full, ',')
	}
	full = append(full, body[1:]...)
	return string(name), full, nil
}
