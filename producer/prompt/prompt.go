// Package prompt renders rows of tables as requests.
//
// A [Renderer] has the compiled templates of a run's [proto.Rows]. It writes for each row a line of JSON
// in a short form, as an input of JSON lines has it: {"custom_id": ..., "messages": [...]}. So rows are
// checked, completed and sent as lines are.
package prompt

import (
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// Renderer renders rows. It is not safe for concurrent use.
type Renderer struct{}

// New compiles the templates of the settings for a table with the given columns. The error is a
// [TemplateError] if a template is wrong or names a column that is not there.
func New(s proto.Settings, columns []table.Column) (*Renderer, error) {
	panic("not there yet")
}

// Columns returns the names of the columns that the settings use, without a table: to read no others.
func Columns(s proto.Settings) ([]string, error) { panic("not there yet") }

// LineSettings returns the settings for the rendered lines: those without templates.
func LineSettings(s proto.Settings) proto.Settings { panic("not there yet") }

// AppendLine appends the line of a row. The error is a [CellError] if a cell is empty or cannot be used.
func (r *Renderer) AppendLine(dst []byte, row table.Row) ([]byte, error) { panic("not there yet") }
