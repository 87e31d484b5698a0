package prompt

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"unicode"
	"unicode/utf8"

	"github.com/promptmill/promptmill/producer/table"
)

// rowTemplate is a compiled template of a flag.
type rowTemplate struct {
	// flag is the flag that has the template, and source its text.
	flag, source string
	// columns are the indexes of the columns that it uses, in [Renderer.names].
	columns []int
	// required are the columns that it prints at its top level, which must not be empty.
	required []int
	// usesRow reports that it uses the whole row, and so columns that are not listed.
	usesRow bool
	// hasText reports that it has text of its own, so that its result is never blank.
	hasText bool
	// parts are the parts of a template of texts and simple actions alone. Nil: tree runs it.
	parts []part
	// tree runs any other template.
	tree *template.Template
}

// part is a text of a template or, if it has none, the value of a column.
type part struct {
	// text is the text, and quoted the same as the inside of a JSON string.
	text, quoted []byte
	// column is the index of the column, in [Renderer.names].
	column int
	// calls are the functions through which the value goes.
	calls []call
}

// call is a call of a function with constant arguments.
type call struct {
	name string
	arg  table.Value
}

// compileTemplate compiles a template. Its columns are added to the renderer's.
func (r *Renderer) compileTemplate(flag, text string) (*rowTemplate, error) {
	if !utf8.ValidString(text) {
		return nil, &TemplateError{Flag: flag, Message: "it is not UTF-8"}
	}

	t := &rowTemplate{flag: flag, source: text}
	tree, err := template.New("row").Funcs(r.funcs()).Parse(text)
	if err != nil {
		return nil, newSyntaxError(flag, text, r.known, err)
	}

	t.tree = tree
	a := analyzer{renderer: r, template: t, isSimple: true}

	if tree.Tree == nil || tree.Root == nil { // a text of definitions alone
		return t, nil
	}

	// What a definition means by .NAME depends on its callers.
	for _, other := range tree.Templates() {
		if other.Name() != tree.Name() {
			t.usesRow, a.isSimple = true, false
			a.visitList(other.Root, place{})
		}
	}

	a.visitList(tree.Root, place{top: true, row: true})

	if a.err != nil {
		return nil, a.err
	}

	if a.isSimple && !r.slow {
		t.parts = append(a.parts, part{})[:len(a.parts)]
	}

	return t, nil
}

// place is a place in a template.
type place struct {
	// top reports that it is not inside of if, with or range.
	top bool
	// row reports that the dot is the row.
	row bool
}

// analyzer finds the columns of a template, and makes its actions print values as they stand in
// the table.
type analyzer struct {
	renderer *Renderer
	template *rowTemplate
	// isSimple reports that all nodes are texts and simple actions so far: parts has them.
	isSimple bool
	parts    []part
	// err is the first error that is found.
	err error
}

// fail notes an error.
func (a *analyzer) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// visitList visits the nodes of a list.
func (a *analyzer) visitList(list *parse.ListNode, at place) {
	if list == nil {
		return
	}

	for _, node := range list.Nodes {
		switch node := node.(type) {
		case *parse.TextNode:
			if name := findInBraces(string(node.Text), a.renderer.known); name != "" {
				a.fail(newBracesError(a.template.flag, name))
			}

			if !at.top {
				continue
			}

			quoted, _ := appendEscaped(nil, node.Text)
			a.parts = append(a.parts, part{text: node.Text, quoted: quoted})

			if !isBlank(node.Text) {
				a.template.hasText = true
			}
		case *parse.CommentNode:
		case *parse.ActionNode:
			a.visitAction(node, at)
		case *parse.IfNode:
			a.visitBranch(&node.BranchNode, at, false)
		case *parse.WithNode:
			a.visitBranch(&node.BranchNode, at, true)
		case *parse.RangeNode:
			a.visitBranch(&node.BranchNode, at, true)
		case *parse.TemplateNode:
			a.isSimple = false
			a.template.usesRow = true
			a.visitPipe(node.Pipe, at)
		default:
			a.isSimple = false
		}
	}
}

// visitBranch visits an if, a with or a range. The latter two change the dot.
func (a *analyzer) visitBranch(node *parse.BranchNode, at place, changesDot bool) {
	a.isSimple = false
	a.visitPipe(node.Pipe, at)
	at.top = false
	a.visitList(node.ElseList, at)
	at.row = at.row && !changesDot
	a.visitList(node.List, at)
}

// visitAction visits an action, and makes it print its value as the table has it.
func (a *analyzer) visitAction(node *parse.ActionNode, at place) {
	pipe := node.Pipe
	a.visitPipe(pipe, at)
	if len(pipe.Decl) > 0 {
		a.isSimple = false
		return
	}

	p, isSimple := a.simplePart(pipe, at)
	if at.top && isSimple {
		a.parts = append(a.parts, p)
	} else {
		a.isSimple = false
	}

	if isSimple {
		if at.top && isRequired(p.calls) {
			a.template.required = addIndex(a.template.required, p.column)
		}
		a.readCell(pipe.Cmds[0], p.column)
	}

	printing := []parse.Node{parse.NewIdentifier("_print").SetPos(node.Pos)}
	if at.top && !isSimple && isNested(pipe) {
		printing = []parse.Node{parse.NewIdentifier("_need").SetPos(node.Pos), newString(node.Pos, pipe.String())}
	}

	pipe.Cmds = append(pipe.Cmds, &parse.CommandNode{
		NodeType: parse.NodeCommand,
		Pos:      node.Pos,
		Args:     printing,
	})
}

// isRequired reports whether a value that goes through functions must not be empty.
func isRequired(calls []call) bool {
	for _, c := range calls {
		if c.name == "default" || c.name == "json" {
			return false
		}
	}
	return true
}

// isNested reports whether a pipeline is a member of a value, such as .meta.name.
func isNested(pipe *parse.PipeNode) bool {
	if len(pipe.Cmds) != 1 || len(pipe.Cmds[0].Args) != 1 {
		return false
	}

	switch arg := pipe.Cmds[0].Args[0].(type) {
	case *parse.FieldNode:
		return true
	case *parse.VariableNode:
		return arg.Ident[0] == "$"
	}

	return false
}

// visitPipe notes the columns of a pipeline.
func (a *analyzer) visitPipe(pipe *parse.PipeNode, at place) {
	if pipe == nil {
		return
	}

	for i, cmd := range pipe.Cmds {
		if err := checkCall(cmd, pipe.Cmds[:i], a.template.flag); err != nil {
			a.fail(err)
		}

		if name, ok := indexedColumn(cmd, at); ok {
			a.use(name)
			for _, arg := range cmd.Args[3:] {
				a.visitArg(arg, at)
			}
			continue
		}

		for _, arg := range cmd.Args {
			a.visitArg(arg, at)
		}
	}
}

// visitArg notes the columns of an argument.
func (a *analyzer) visitArg(arg parse.Node, at place) {
	switch arg := arg.(type) {
	case *parse.IdentifierNode:
		if strings.HasPrefix(arg.Ident, "_") { // of this package alone, see funcs
			a.fail(newFunctionError(a.template.flag, arg.Ident, "", a.renderer.known))
		}
	case *parse.PipeNode:
		a.visitPipe(arg, at)
	case *parse.ChainNode:
		a.visitArg(arg.Node, at)
	case *parse.DotNode:
		if at.row {
			a.template.usesRow = true
		}
	case *parse.FieldNode:
		if at.row {
			a.use(arg.Ident[0])
		}
	case *parse.VariableNode:
		switch {
		case arg.Ident[0] != "$":
		case len(arg.Ident) == 1:
			a.template.usesRow = true
		default:
			a.use(arg.Ident[1])
		}
	}
}

// use notes a column, and returns its index.
func (a *analyzer) use(name string) int {
	column := a.renderer.addColumn(name)
	a.template.columns = addIndex(a.template.columns, column)

	return column
}

// columnOf returns the name of the column that an argument is, such as .NAME or $.NAME.
func columnOf(arg parse.Node, at place) (string, bool) {
	switch arg := arg.(type) {
	case *parse.FieldNode:
		return arg.Ident[0], at.row && len(arg.Ident) == 1
	case *parse.VariableNode:
		if arg.Ident[0] == "$" && len(arg.Ident) == 2 {
			return arg.Ident[1], true
		}
	case *parse.PipeNode:
		if len(arg.Decl) == 0 && len(arg.Cmds) == 1 && len(arg.Cmds[0].Args) == 3 {
			return indexedColumn(arg.Cmds[0], at)
		}
	}

	return "", false
}

// indexedColumn returns the name of the column of a call such as index . "NAME".
func indexedColumn(cmd *parse.CommandNode, at place) (string, bool) {
	if len(cmd.Args) < 3 {
		return "", false
	}

	function, ok := cmd.Args[0].(*parse.IdentifierNode)
	if !ok || function.Ident != "index" {
		return "", false
	}

	switch of := cmd.Args[1].(type) {
	case *parse.DotNode:
		if !at.row {
			return "", false
		}
	case *parse.VariableNode:
		if of.Ident[0] != "$" || len(of.Ident) > 1 {
			return "", false
		}
	default:
		return "", false
	}

	name, ok := cmd.Args[2].(*parse.StringNode)
	if !ok {
		return "", false
	}

	return name.Text, true
}

// simplePart returns the part for a pipeline of a column and functions of this package.
func (a *analyzer) simplePart(pipe *parse.PipeNode, at place) (p part, ok bool) {
	first := pipe.Cmds[0]
	name, ok := indexedColumn(first, at)
	switch {
	case ok:
		ok = len(first.Args) == 3
	case len(first.Args) == 1:
		name, ok = columnOf(first.Args[0], at)
	default:
		var c call
		last := len(first.Args) - 1
		if c, ok = constantCall(first.Args[:last]); ok {
			p.calls = append(p.calls, c)
			name, ok = columnOf(first.Args[last], at)
		}
	}

	for _, cmd := range pipe.Cmds[1:] {
		c, isCall := constantCall(cmd.Args)
		ok = ok && isCall
		p.calls = append(p.calls, c)
	}

	if ok {
		p.column = a.use(name)
	}

	return p, ok
}

// constantCall returns the call of a function of this package whose arguments are constants,
// without its last one.
func constantCall(args []parse.Node) (c call, ok bool) {
	function, ok := args[0].(*parse.IdentifierNode)
	if !ok {
		return c, false
	}

	c.name = function.Ident
	if c.name == "json" {
		return c, len(args) == 1
	}

	if len(args) != 2 {
		return c, false
	}

	switch arg := args[1].(type) {
	case *parse.StringNode:
		c.arg = table.Value{Kind: table.KindText, Text: []byte(arg.Text)}
		return c, c.name == "default" || c.name == "join"
	case *parse.NumberNode:
		isDecimal := arg.IsInt && strings.Trim(arg.Text, "0123456789") == "" &&
			(len(arg.Text) == 1 || arg.Text[0] != '0')
		c.arg = table.Value{Kind: table.KindInt, Bits: uint64(arg.Int64)}
		return c, isDecimal && (c.name == "default" || c.name == "truncate")
	}

	return c, false
}

// readCell makes a command read the cell of a column in place of its value.
func (a *analyzer) readCell(cmd *parse.CommandNode, column int) {
	cell := []parse.Node{
		parse.NewIdentifier("_cell").SetPos(cmd.Pos),
		newString(cmd.Pos, a.renderer.names[column]),
	}

	last := len(cmd.Args) - 1
	function, isCall := cmd.Args[0].(*parse.IdentifierNode)
	if !isCall || function.Ident == "index" {
		cmd.Args = cell
		return
	}

	cmd.Args[last] = &parse.PipeNode{
		NodeType: parse.NodePipe,
		Pos:      cmd.Pos,
		Cmds: []*parse.CommandNode{{
			NodeType: parse.NodeCommand,
			Pos:      cmd.Pos,
			Args:     cell,
		}},
	}
}

// newString returns the node of a string.
func newString(pos parse.Pos, text string) *parse.StringNode {
	return &parse.StringNode{
		NodeType: parse.NodeString,
		Pos:      pos,
		Quoted:   `"` + text + `"`,
		Text:     text,
	}
}

// addIndex adds an index that is not there yet.
func addIndex(indexes []int, index int) []int {
	if slices.Contains(indexes, index) {
		return indexes
	}
	return append(indexes, index)
}

// isBlank reports whether a text has no character but white space.
func isBlank(text []byte) bool { return len(bytes.TrimLeftFunc(text, unicode.IsSpace)) == 0 }

// appendText appends the text of a template for the current row.
func (r *Renderer) appendText(dst []byte, t *rowTemplate) ([]byte, error) {
	r.flag = t.flag
	if err := r.checkRequired(t); err != nil {
		return dst, err
	}

	from := len(dst)
	if t.parts != nil {
		for i := range t.parts {
			p := &t.parts[i]
			if p.text != nil {
				dst = append(dst, p.text...)
				continue
			}

			v, err := r.applyCalls(p)
			if err != nil {
				return dst, err
			}

			dst = v.AppendText(dst)
		}
	} else {
		r.out.Reset()
		if err := t.tree.Execute(&r.out, r.readRow(t)); err != nil {
			return dst, newExecError(t.flag, err)
		}
		dst = append(dst, r.out.Bytes()...)
	}

	if !t.hasText && isBlank(dst[from:]) {
		return dst, r.newBlankError(t)
	}

	return dst, nil
}

// appendQuoted appends the text of a template for the current row as a JSON string.
func (r *Renderer) appendQuoted(dst []byte, t *rowTemplate) ([]byte, error) {
	if t.parts == nil || !t.hasText && len(t.required) == 0 {
		text, err := r.appendText(r.text[:0], t)
		r.text = text
		if err != nil {
			return dst, err
		}
		return r.appendString(dst, text, t.columns)
	}

	r.flag = t.flag
	if err := r.checkRequired(t); err != nil {
		return dst, err
	}

	dst = append(dst, '"')
	for i := range t.parts {
		p := &t.parts[i]
		if p.text != nil {
			dst = append(dst, p.quoted...)
			continue
		}

		v, err := r.applyCalls(p)
		if err != nil {
			return dst, err
		}

		if v.Kind == table.KindText && len(p.calls) == 0 && r.isChecked {
			dst, _ = appendChecked(dst, v.Text)
			continue
		}

		text := v.Text
		if v.Kind != table.KindText {
			r.text = v.AppendText(r.text[:0])
			text = r.text
		}

		var ok bool
		if dst, ok = appendEscaped(dst, text); !ok {
			return dst, newEncodingError(r.names[p.column])
		}
	}

	return append(dst, '"'), nil
}

// appendString appends a text, made of some columns, as a JSON string.
func (r *Renderer) appendString(dst, text []byte, columns []int) ([]byte, error) {
	dst, ok := appendEscaped(append(dst, '"'), text)
	if !ok {
		name := ""
		for _, column := range columns {
			if v := r.value(column); v.Kind == table.KindText && !utf8.Valid(v.Text) || len(columns) == 1 {
				name = r.names[column]
				break
			}
		}
		return dst, newEncodingError(name)
	}

	return append(dst, '"'), nil
}

// newEncodingError returns the error of text that is not UTF-8.
func newEncodingError(column string) *CellError {
	return &CellError{Column: column, Reason: "its text is not UTF-8"}
}

// checkRequired returns the error of a required column that is empty.
func (r *Renderer) checkRequired(t *rowTemplate) error {
	for _, column := range t.required {
		if r.value(column).IsEmpty() {
			return newEmptyError(r.names[column])
		}
	}
	return nil
}

// newBlankError returns the error of a template that has no text for the current row.
func (r *Renderer) newBlankError(t *rowTemplate) error {
	e := &CellError{Empty: true, Reason: t.flag + " has no text for it"}
	if len(t.columns) == 1 {
		e.Column = r.names[t.columns[0]]
	}
	return e
}

// newExecError returns the error of a template that fails with a row.
func newExecError(flag string, err error) error {
	if cell, ok := errors.AsType[*CellError](err); ok {
		return cell
	}

	text := err.Error()
	at := ""
	if _, rest, ok := strings.Cut(text, "at <"); ok {
		at, _, _ = strings.Cut(rest, ">:")
	}

	reason := flag + " does not work with its values"
	if at != "" {
		reason += " at {{" + strings.TrimSuffix(strings.TrimPrefix(at, "{{"), "}}") + "}}"
	}

	if plain, _, ok := describeFault(text, rowFaults); ok {
		reason += ": " + plain
	}

	return &CellError{Reason: reason}
}

// readRow returns the columns of the current row as a template takes them.
func (r *Renderer) readRow(t *rowTemplate) rowData {
	clear(r.data)
	if t.usesRow {
		for i, c := range r.row.Columns {
			r.data[c.Name] = convertNumbers(r.row.Values[i].Any())
		}
	}

	for _, column := range t.columns {
		if v := r.value(column); !v.IsNull() {
			r.data[r.names[column]] = convertNumbers(v.Any())
		}
	}

	return r.data
}
