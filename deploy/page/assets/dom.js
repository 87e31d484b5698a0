// What the views need of the document. Text from the head reaches the page as text only: nothing
// here, or in the views, sets innerHTML.

/**
 * element makes an element. Attributes that are null, undefined or false are left out, and one that is
 * true is empty. Children are nodes or text; null is none.
 */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children)
}

/** svgElement makes an element of SVG. */
export function svgElement(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children)
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    setAttribute(node, key, value)
  }
  node.append(...children.filter((c) => c !== null && c !== undefined).map((c) => typeof c === "string" ? keepOrder(c) : c))

  return node
}

/**
 * keepOrder replaces the characters that change the direction of the text after them: a model with one in its
 * name would turn around the rest of a sentence. Right-to-left letters need none of them.
 */
export function keepOrder(text) {
  return text.replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd")
}

/** setText sets the text of a node if it differs: a node that stays the same costs no layout. */
export function setText(node, text) {
  text = keepOrder(String(text))
  if (node.textContent !== text) {
    node.textContent = text
  }
}

/** setAttribute sets an attribute if it differs; null, undefined and false remove it. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    node.removeAttribute(name)
    return
  }

  const text = value === true ? "" : String(value)
  if (node.getAttribute(name) !== text) {
    node.setAttribute(name, text)
  }
}

/** setHidden hides a node or shows it. */
export function setHidden(node, hidden) {
  if (node.hidden !== hidden) {
    node.hidden = hidden
  }
}

/**
 * KeyedList keeps the children of a node in step with a list of items. The child of an item stays
 * the same node while the item is in the list, so that focus, selection and scrolling stay too.
 */
export class KeyedList {
  /**
   * @param parent the node
   * @param keyOf returns the key of an item
   * @param create returns a row of an item: {node, update(item, context)}
   */
  constructor(parent, keyOf, create) {
    this.parent = parent
    this.keyOf = keyOf
    this.create = create
    this.rows = new Map()
  }

  /** update shows items, in their order. */
  update(items, context) {
    const gone = new Set(this.rows.keys())
    let next = this.parent.firstChild

    for (const item of items) {
      const key = this.keyOf(item)
      gone.delete(key)

      let row = this.rows.get(key)
      if (!row) {
        row = this.create(item)
        this.rows.set(key, row)
      }
      row.update(item, context)

      if (row.node === next) {
        next = next.nextSibling
      } else {
        this.parent.insertBefore(row.node, next)
      }
    }

    for (const key of gone) {
      this.rows.get(key).node.remove()
      this.rows.delete(key)
    }
  }
}
