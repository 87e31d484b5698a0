// Package prompt renders the rows of tables as requests.
//
// A [Renderer] has the compiled templates of a run's [proto.Rows]. It writes for each row a
// line of JSON in a short form, as an input of JSON lines has it: {"custom_id": ...,
// "messages": [...]}. So rows are checked, completed and sent as lines are.
//
// Templates are those of text/template. {{.NAME}} is the value of a column, and {{index . "a
// name"}} that of a column whose name has spaces or dots. A value is printed as it stands in
// the table; a list or an object of JSON, as JSON. Four functions come on top of those of
// text/template:
//
//	{{json .tags}}                  the value as JSON; {{json .}} is the whole row
//	{{truncate 4000 .text}}         the first 4000 characters
//	{{default "none" .category}}    "none" if the cell is empty
//	{{join ", " .tags}}             the elements of a list
//
// The value is their last argument, so each of them also reads {{.text | truncate 4000}}.
//
// Comparisons such as {{if gt .score 0.5}} take a text that is a number for the number, since all
// cells of CSV are texts. Single braces, as in {text}, are refused if a column has that name.
//
// A column that a template prints at its top level must not be empty in any row: a prompt
// without its text is a mistake. Inside of if, with or range, and through default or json, it
// may be.
package prompt
