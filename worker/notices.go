package worker

import "sync"

// Notices records which messages about a model server were logged, so that each is logged once.
// The workers that serve one model server in turn share it. The zero value is empty.
type Notices struct {
	mu    sync.Mutex
	texts map[string]bool
}

// firstTime records text, and reports whether it was not recorded before.
func (n *Notices) firstTime(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()

	if n.texts[text] {
		return false
	}

	if n.texts == nil {
		n.texts = map[string]bool{}
	}

	n.texts[text] = true

	return true
}
