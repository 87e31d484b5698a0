package worker

// signal wakes the one goroutine that receives from it. It holds at most one element, so
// several notifications before that goroutine looks are one.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

// notify wakes the goroutine, now or when it next waits.
func (s signal) notify() {
	select {
	case s <- struct{}{}:
	default:
	}
}
