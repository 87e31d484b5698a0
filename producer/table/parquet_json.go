package table

import (
	"slices"

	"github.com/parquet-go/parquet-go"
)

// A nested column is stored as its leaves: each has the values of the row with two levels. The
// repetition level says at which list a value begins a new element; the definition level, how
// many of the optional and repeated nodes above the value are there. Where they are not, one
// null per leaf stands for it.

// rowWalk is a place in the values of a row's leaves.
type rowWalk struct {
	// values has the values of each leaf of the file that are left; those of other columns are
	// not there.
	values [][]parquet.Value
}

// appendNode appends the next value of a node, with all its elements if it is repeated.
func (w *rowWalk) appendNode(dst []byte, n *parquetNode) []byte {
	switch {
	case n.isRepeated():
		return w.appendElements(dst, n, n)
	case !w.has(n):
		w.skip(n)
		return append(dst, "null"...)
	}

	return w.appendContent(dst, n)
}

// appendContent appends a value that is there.
func (w *rowWalk) appendContent(dst []byte, n *parquetNode) []byte {
	if n.isLeaf() {
		v := w.next(n)
		return n.appendLeafJSON(dst, v)
	}

	switch n.shape {
	case shapeList:
		return w.appendElements(dst, n.children[0], n.listElement())
	case shapeMap:
		return w.appendEntries(dst, n.children[0])
	}

	dst = append(dst, '{')
	for i, child := range n.children {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendJSONText(dst, []byte(child.element.Name))
		dst = append(dst, ':')
		dst = w.appendNode(dst, child)
	}

	return append(dst, '}')
}

// appendElements appends a list. Element is the repeated node, or the one in it.
func (w *rowWalk) appendElements(dst []byte, repeated, element *parquetNode) []byte {
	if !w.has(repeated) {
		w.skip(repeated)
		return append(dst, "[]"...)
	}

	dst = append(dst, '[')
	for first := true; first || w.repeats(repeated); first = false {
		if !first {
			dst = append(dst, ',')
		}

		if element == repeated {
			dst = w.appendContent(dst, repeated)
		} else {
			dst = w.appendNode(dst, element)
		}
	}

	return append(dst, ']')
}

// appendEntries appends a map as an object. A map without values has nulls.
func (w *rowWalk) appendEntries(dst []byte, repeated *parquetNode) []byte {
	if !w.has(repeated) {
		w.skip(repeated)
		return append(dst, "{}"...)
	}

	key := repeated.children[0]

	dst = append(dst, '{')
	for first := true; first || w.repeats(repeated); first = false {
		if !first {
			dst = append(dst, ',')
		}

		start := len(dst)
		dst = key.appendLeafJSON(dst, w.next(key))
		if dst[start] != '"' { // a number, for example
			dst = append(slices.Insert(dst, start, '"'), '"')
		}

		dst = append(dst, ':')

		if len(repeated.children) == 1 {
			dst = append(dst, "null"...)
			continue
		}

		dst = w.appendNode(dst, repeated.children[1])
	}

	return append(dst, '}')
}

// has reports whether the next value of a node is there.
func (w *rowWalk) has(n *parquetNode) bool {
	return w.values[n.leaves[0].leaf][0].DefinitionLevel() >= int(n.definition)
}

// repeats reports whether the list of a repeated node has another element.
func (w *rowWalk) repeats(n *parquetNode) bool {
	values := w.values[n.leaves[0].leaf]
	return len(values) > 0 && values[0].RepetitionLevel() == int(n.repetition)
}

// skip leaves out the nulls that stand for a node.
func (w *rowWalk) skip(n *parquetNode) {
	for _, leaf := range n.leaves {
		w.next(leaf)
	}
}

// next returns the next value of a leaf. Leaves of one column that do not fit each other make
// it panic: there is no next value. The reader recovers from that.
func (w *rowWalk) next(leaf *parquetNode) parquet.Value {
	values := w.values[leaf.leaf]
	w.values[leaf.leaf] = values[1:]
	return values[0]
}
