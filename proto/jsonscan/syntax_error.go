package jsonscan

import "fmt"

// SyntaxError is the error of a text that is not the JSON that a [Scanner] was asked to walk.
type SyntaxError struct {
	Fault Fault
	// Offset is the offset of the first wrong byte; for [Cut] it is the length of the text.
	Offset int
	// cause is the parser's own description of a [Broken] text.
	cause error
}

// Fault is a kind of [SyntaxError].
type Fault int

// The faults of a text.
const (
	// Broken text breaks the grammar of JSON.
	Broken Fault = iota
	// Cut text is JSON up to its end, and incomplete.
	Cut
	// Trailing text follows the value.
	Trailing
	// NotUTF8 text has bytes that are not UTF-8.
	NotUTF8
	// NotObject and NotArray are other values than the one to enter.
	NotObject
	NotArray
)

// Error implements error.
func (e *SyntaxError) Error() string {
	switch e.Fault {
	case Cut:
		return fmt.Sprintf("JSON ends in the middle (after %d bytes)", e.Offset)
	case Trailing:
		return fmt.Sprintf("text after the JSON object at byte %d", e.Offset+1)
	case NotUTF8:
		return fmt.Sprintf("broken JSON at byte %d: invalid UTF-8", e.Offset+1)
	case NotObject:
		return "not a JSON object"
	case NotArray:
		return "not a JSON array"
	}

	return fmt.Sprintf("broken JSON at byte %d: %v", e.Offset+1, e.cause)
}

// Unwrap returns the parser's own error, nil if it has none.
func (e *SyntaxError) Unwrap() error { return e.cause }
