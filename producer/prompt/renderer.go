package prompt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Config configures a [Renderer].
type Config struct {
	// Settings are the settings of the run. Settings.Rows is required.
	Settings proto.Settings
	// Columns are the columns of the table. Required.
	Columns []table.Column
	// Varied reports that rows have columns of their own, as objects of JSON have: only columns
	// that must not be empty have to be among Columns.
	Varied bool
	// Header reports that the first line of a file of CSV has the names of the columns.
	Header bool
	// IsChecked reports that the texts of the rows are UTF-8, as readers of package table return
	// them. Otherwise they are checked here. Defaults to false.
	IsChecked bool
	// File is the path or URL of the table. Paths of images are relative to its folder.
	// Defaults to the working directory.
	File string
	// NoFiles reports that an image that is a file is a [CellError], wherever it is. Defaults to false.
	NoFiles bool
	// Opener opens the files of images. Defaults to [inputfile.Local].
	Opener inputfile.Opener
}

// Renderer renders rows. It is not safe for concurrent use.
type Renderer struct {
	ctx      context.Context
	endpoint string
	file     string
	opener   inputfile.Opener
	// isChecked is Config.IsChecked.
	isChecked bool
	// noFiles reports that images that are files are refused.
	noFiles bool

	// names are the names of the columns that are used.
	names []string
	// customID and messages are the indexes of columns in names, -1 if there is none.
	customID, messages int
	images             []int
	// model, prompt and system are nil if there is none.
	model, prompt, system *rowTemplate
	set                   []setTemplate
	// format is the member response_format with the comma before it; empty if there is none.
	format []byte
	// slow leaves all templates to text/template.
	slow bool
	// known are the columns of the table, for the errors of templates. Nil: they are not known.
	known []string

	// row is the current row. indexes has the index of each of names in it, -1 if it has no
	// such column.
	row     table.Row
	indexes []int
	// columns are the columns for which indexes was made.
	columns []table.Column
	// seen says of each of names whether a row had the column.
	seen []bool

	// flag is the flag that is rendered, for errors.
	flag string

	scan jsonscan.Scanner
	data rowData
	out  bytes.Buffer
	text []byte
}

// The flags that name columns or have templates.
const (
	promptFlag   = "--prompt"
	systemFlag   = "--system"
	messagesFlag = "--messages"
	imageFlag    = "--image"
	customIDFlag = "--custom-id"
	modelFlag    = "--model"
	overrideFlag = "--override-model"
	setFlag      = "--set "
)

// New compiles the templates of the settings for a table. Images are read until ctx ends. The
// error is a [TemplateError] if a template is wrong or names a column that is not there.
func New(ctx context.Context, cfg Config) (*Renderer, error) {
	r, err := compileSettings(cfg.Settings, namesOf(cfg.Columns), false)
	if err != nil {
		return nil, err
	}

	r.ctx, r.file, r.opener, r.noFiles = ctx, cfg.File, cfg.Opener, cfg.NoFiles
	r.isChecked = cfg.IsChecked
	if r.opener == nil {
		r.opener = inputfile.Local{}
	}

	return r, r.checkColumns(cfg)
}

// Columns returns the names of the columns that the settings use, without a table: to read no
// others. Nil: they may use all. The error is a [TemplateError] if a template is wrong.
func Columns(s proto.Settings) ([]string, error) {
	r, err := compileSettings(s, nil, false)
	if err != nil {
		return nil, err
	}

	for _, t := range r.templates() {
		if t.usesRow {
			return nil, nil
		}
	}

	return r.names, nil
}

// LineSettings returns the settings for the rendered lines: without what the lines have already.
func LineSettings(s proto.Settings) proto.Settings {
	switch {
	case isTemplate(s.OverrideModel):
		s.Model, s.OverrideModel = "", ""
	case isTemplate(s.Model):
		s.Model = ""
	}

	s.Set = maps.Clone(s.Set)
	maps.DeleteFunc(s.Set, func(_, value string) bool { return isTemplate(value) })

	return s
}

// isTemplate reports whether a text of the settings is a template.
func isTemplate(text string) bool { return strings.Contains(text, "{{") }

// compileSettings compiles the templates of settings. known are the columns of the table, if
// they are known; slow leaves all templates to text/template.
func compileSettings(s proto.Settings, known []string, slow bool) (*Renderer, error) {
	rows := s.Rows
	if rows == nil {
		return nil, fmt.Errorf("the settings have no rows")
	}

	r := &Renderer{
		endpoint: s.Endpoint,
		customID: -1,
		messages: -1,
		slow:     slow,
		known:    known,
		data:     rowData{},
	}

	if err := checkRows(s); err != nil {
		return nil, err
	}

	if rows.CustomID != "" {
		r.customID = r.addColumn(rows.CustomID)
	}

	if rows.Messages != "" {
		r.messages = r.addColumn(rows.Messages)
	}

	for _, name := range rows.Images {
		r.images = append(r.images, r.addColumn(name))
	}

	model, flag := s.Model, modelFlag
	if s.OverrideModel != "" {
		model, flag = s.OverrideModel, overrideFlag
	}

	if !isTemplate(model) {
		if name := findInBraces(model, known); name != "" {
			return nil, newBracesError(flag, name)
		}
		model = ""
	}

	for _, field := range []struct {
		to         **rowTemplate
		flag, text string
	}{
		{&r.model, flag, model},
		{&r.system, systemFlag, rows.System},
		{&r.prompt, promptFlag, rows.Prompt},
	} {
		if field.text == "" {
			continue
		}

		t, err := r.compileTemplate(field.flag, field.text)
		if err != nil {
			return nil, err
		}

		*field.to = t
	}

	if r.messages < 0 && len(r.images) == 0 && len(r.prompt.columns) == 0 && !r.prompt.usesRow {
		return nil, newSameError(rows.Prompt, known)
	}

	for _, name := range slices.Sorted(maps.Keys(s.Set)) {
		if !isTemplate(s.Set[name]) {
			continue
		}

		field, err := r.compileSet(name, s.Set[name])
		if err != nil {
			return nil, err
		}

		r.set = append(r.set, field)
	}

	if _, isSet := s.Set["response_format"]; len(s.Schema) > 0 && !isSet && r.hasMessages() {
		schema := jsontext.Value(bytes.Clone(s.Schema))
		if err := schema.Compact(); err != nil {
			return nil, fmt.Errorf("the schema is not JSON: %w", err)
		}

		r.format = fmt.Appendf(nil,
			`,"response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":%s}}`,
			schema)
	}

	return r, nil
}

// checkRows refuses rows that have no request, or one with no place for all of it.
func checkRows(s proto.Settings) error {
	rows := s.Rows
	if rows.Prompt == "" && rows.Messages == "" {
		return &TemplateError{Flag: promptFlag, Message: "it is empty"}
	}

	switch s.Endpoint {
	case "", "/v1/chat/completions":
		return nil
	case "/v1/completions", "/v1/embeddings":
	default:
		return &TemplateError{
			Flag:    "--endpoint",
			Message: "no request of " + s.Endpoint + " can be made of a row",
		}
	}

	flag := ""
	switch {
	case rows.System != "":
		flag = systemFlag
	case rows.Messages != "":
		flag = messagesFlag
	case len(rows.Images) > 0:
		flag = imageFlag
	default:
		return nil
	}

	return &TemplateError{
		Flag:    flag,
		Message: "a request of " + s.Endpoint + " has no messages",
	}
}

// hasMessages reports whether the requests have messages.
func (r *Renderer) hasMessages() bool {
	return r.endpoint != "/v1/completions" && r.endpoint != "/v1/embeddings"
}

// templates returns all templates.
func (r *Renderer) templates() []*rowTemplate {
	var all []*rowTemplate
	for _, t := range []*rowTemplate{r.model, r.system, r.prompt} {
		if t != nil {
			all = append(all, t)
		}
	}

	for _, field := range r.set {
		for _, p := range field.parts {
			if p.template != nil {
				all = append(all, p.template)
			}
		}
	}

	return all
}

// addColumn returns the index of a column that is used.
func (r *Renderer) addColumn(name string) int {
	if i := slices.Index(r.names, name); i >= 0 {
		return i
	}

	r.names = append(r.names, name)
	r.columns = nil

	return len(r.names) - 1
}

// checkColumns returns the error of a column that is used, and that the table does not have.
func (r *Renderer) checkColumns(cfg Config) error {
	isThere := func(column int) bool {
		return slices.ContainsFunc(cfg.Columns, func(c table.Column) bool { return c.Name == r.names[column] })
	}

	check := func(flag, template string, columns ...int) error {
		for _, column := range columns {
			if column >= 0 && !isThere(column) {
				return newColumnError(flag, r.names[column], template, cfg)
			}
		}
		return nil
	}

	for _, t := range r.templates() {
		columns := t.columns
		switch {
		case cfg.Varied && cfg.Settings.SkipInvalid: // other rows may have it
			columns = nil
		case cfg.Varied:
			columns = t.required
		}

		if err := check(t.flag, t.source, columns...); err != nil {
			return err
		}
	}

	for _, err := range []error{
		check(messagesFlag, "", r.messages),
		check(imageFlag, "", r.images...),
		check(customIDFlag, "", r.customID),
	} {
		if err != nil {
			return err
		}
	}

	return nil
}

// setRow makes a row the current one.
func (r *Renderer) setRow(row table.Row) {
	r.row = row
	if len(r.columns) == len(row.Columns) && len(r.columns) > 0 && &r.columns[0] == &row.Columns[0] {
		return
	}

	r.columns = row.Columns
	r.indexes = r.indexes[:0]
	for i, name := range r.names {
		index := slices.IndexFunc(row.Columns, func(c table.Column) bool { return c.Name == name })
		r.indexes = append(r.indexes, index)

		if i >= len(r.seen) {
			r.seen = append(r.seen, false)
		}

		r.seen[i] = r.seen[i] || index >= 0
	}
}

// Unseen returns the errors of the columns that templates use, and that no row had so far.
func (r *Renderer) Unseen() (unseen []*TemplateError) {
	for _, t := range r.templates() {
		for _, column := range t.columns {
			if column < len(r.seen) && !r.seen[column] {
				unseen = append(unseen, &TemplateError{
					Flag:    t.flag,
					Message: "no row has a column " + r.names[column],
					Column:  r.names[column],
					Hint:    hintForColumn(r.names[column], namesOf(r.columns), formatAction),
				})
			}
		}
	}

	return unseen
}

// value returns the value of a column in the current row, null if the row does not have it.
func (r *Renderer) value(column int) table.Value {
	if column >= len(r.indexes) || r.indexes[column] < 0 {
		return table.Value{}
	}
	return r.row.Values[r.indexes[column]]
}

// AppendLine appends the line of a row. The error is a [CellError] if a cell is empty or cannot
// be used. Any other error is that of a file of an image, which cannot be read now.
func (r *Renderer) AppendLine(dst []byte, row table.Row) ([]byte, error) {
	dst, err := r.appendLine(dst, row)
	if cell, ok := errors.AsType[*CellError](err); ok {
		cell.Flag = r.flag
	}

	return dst, err
}

// appendLine is AppendLine for errors without their flags.
func (r *Renderer) appendLine(dst []byte, row table.Row) ([]byte, error) {
	r.setRow(row)

	var err error
	dst = append(dst, '{')
	if r.customID >= 0 {
		if dst, err = r.appendID(dst); err != nil {
			return dst, err
		}
		dst = append(dst, ',')
	}

	if r.model != nil {
		dst = append(dst, `"model":`...)
		if dst, err = r.appendQuoted(dst, r.model); err != nil {
			return dst, err
		}
		dst = append(dst, ',')
	}

	for i := range r.set {
		if dst, err = r.appendSet(dst, &r.set[i]); err != nil {
			return dst, err
		}
		dst = append(dst, ',')
	}

	switch r.endpoint {
	case "/v1/completions":
		dst, err = r.appendQuoted(append(dst, `"prompt":`...), r.prompt)
	case "/v1/embeddings":
		dst, err = r.appendQuoted(append(dst, `"input":`...), r.prompt)
	default:
		dst, err = r.appendMessages(append(dst, `"messages":[`...))
	}
	if err != nil {
		return dst, err
	}

	dst = append(dst, r.format...)

	return append(dst, '}'), nil
}

// AppendID appends the custom_id of a row as a JSON string, if the settings have a column for
// it and its cell can be used: to name the row even if it cannot be rendered.
func (r *Renderer) AppendID(dst []byte, row table.Row) []byte {
	if r.customID < 0 {
		return dst
	}

	r.setRow(row)
	before := len(dst)
	dst, err := r.appendID(dst)
	if err != nil {
		return dst[:before]
	}

	return dst[before+len(`"custom_id":`):]
}

// appendID appends the member with the custom_id.
func (r *Renderer) appendID(dst []byte) ([]byte, error) {
	r.flag = customIDFlag
	v := r.value(r.customID)
	if v.IsEmpty() {
		return dst, newEmptyError(r.names[r.customID])
	}

	r.text = v.AppendText(r.text[:0])

	return r.appendString(append(dst, `"custom_id":`...), r.text, []int{r.customID})
}
