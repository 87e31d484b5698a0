// Package supervise starts a model server and keeps it running: it says when the
// server is ready, what it told about its memory while it loaded, starts it again when
// it dies, and leaves none of its processes behind, not even when this process is
// killed.
package supervise
