package http1

import (
	"net/http"
	"time"
)

const (
	// duplicateDelay is the greatest delay between an answer and a second one to the same
	// request. An answer that begins later than that on the same connection is its request's.
	duplicateDelay = 8 * time.Millisecond

	// maxRestTime bounds the time that a connection rests, so that leftover bytes show.
	maxRestTime = 20 * time.Millisecond
)

// verdict decides on an answer.
type verdict int

const (
	accept         verdict = iota
	acceptLast             // and use the connection no more
	refuse                 // it may be another request's
	refuseAndWatch         // likewise, and watch the connection for the proof
)

// exchange is a request on a connection, and its answer.
type exchange struct {
	id    RequestID
	begin time.Time // of the request
	began time.Time // of the answer
	res   Response
	err   error

	traceParent string // empty: none
	reusable    bool   // the connection can be used for another request
}

// judgeAnswer decides whether an answer may be that of another request: it carries the id of
// one; more came than one answer; it came so soon after the answer before that the server can
// hardly have worked on it; it repeats that answer; or another is left over after it. The last
// three are checked with good servers as well, so they are bounded, and cost a request or a
// wait.
func (c *Client) judgeAnswer(k *conn, x *exchange) verdict {
	if x.id.IsOther(x.res.Header, x.res.Body) {
		c.markOutOfStep("an answer carries the id of another request")
		return refuse
	}

	isRepeat := k.repeatsLast(x.res.Body) && x.res.Status == http.StatusOK
	first := k.uses == 1 && k.watched // nothing came before the request: the first bytes are the answer
	switch {
	case k.in.Buffered() > 0 && k.checkIdle() == stray:
		c.markOutOfStep("more bytes came than one answer")
		if !first {
			return refuse
		}
	case first:
	case x.res.Status == http.StatusRequestTimeout && k.uses > 1: // the server reports that no request came
		return refuse
	case c.singleUse.Load(): // this connection may have been out of step, too
		return refuse
	case x.began.Sub(k.idleSince) < duplicateDelay && (!c.timing.isFast() || x.res.Status >= 300):
		return c.judgeEarlyAnswer(k, x.res.Status)
	case isRepeat && c.shouldAwaitRepeat(x):
		if k.awaitBytes(min(2*c.timing.mean(), 10*time.Second)+10*time.Millisecond) == stray {
			c.markOutOfStep("an answer came twice")
			return refuse
		}
	case c.shouldRest(k):
		if k.awaitBytes(c.timing.restTime()) == stray {
			c.markOutOfStep("an answer was left over")
			return refuse
		}
	}

	return accept
}

// judgeEarlyAnswer decides on an answer that came very soon after the one before.
func (c *Client) judgeEarlyAnswer(k *conn, status int) verdict {
	switch {
	case status >= 300 && status != http.StatusBadRequest:
		return acceptLast // most are retried, or looked into; the next request has another connection
	case !c.spendAllowance(&c.resends):
		return acceptLast
	case !c.timing.isFast():
		return refuseAndWatch
	case k.awaitBytes(c.timing.restTime()) == stray:
		c.markOutOfStep("a refusal came before the answer")
		return refuse
	}

	return accept
}

// shouldAwaitRepeat reports whether an answer that equals the last one came in less than half
// the usual time, or the server is too fast for that to mean anything; and whether there is
// allowance left to wait for another.
func (c *Client) shouldAwaitRepeat(x *exchange) bool {
	return (c.timing.isFast() || x.began.Sub(x.begin) < c.timing.mean()/2) && c.spendAllowance(&c.waits)
}

// shouldRest reports whether it is time to wait for an answer that is left over. A connection
// that is one answer ahead shows no sign of it while it is always busy. So it rests after its
// second, fourth, eighth answer, with a server that would send the next one meanwhile.
func (c *Client) shouldRest(k *conn) bool {
	return k.uses > 1 && k.uses&(k.uses-1) == 0 && c.timing.mean() <= maxRestTime
}

// markOutOfStep records that the server has sent something unasked: from now on each connection
// is used for one request.
func (c *Client) markOutOfStep(seen string) {
	if c.singleUse.Swap(true) {
		return
	}

	c.log.Warn().Str("server", c.origin).Str("seen", seen).
		Msg(
			"the model server, or a proxy before it, sends unrequested answers; using each connection for one request only",
		)

	c.CloseIdle()
}

// watchDoubted waits, in the background, for bytes on the connection of a doubted answer, as long
// as the right answer may still arrive, and closes it. took is the time of
// that exchange.
func (c *Client) watchDoubted(k *conn, took time.Duration) {
	c.mu.Lock()
	c.doubted[k] = struct{}{}
	c.mu.Unlock()

	go func() {
		seen := k.awaitBytes(3*c.timing.mean() + 50*time.Millisecond)
		if seen == stray {
			c.markOutOfStep("a second answer came to one request")
		}

		c.mu.Lock()
		delete(c.doubted, k)

		if seen == quiet {
			c.timing.recordFalseAlarm(took)
		}

		c.mu.Unlock()
		k.Close()
	}()
}

// allowance bounds how often something is done: a number of times at first, and then once per
// price answers.
type allowance struct{ left, most, price int }

func newAllowance(first, price int) allowance { return allowance{first * price, first * price, price} }

// earnOne adds the allowance that an answer earns.
func (a *allowance) earnOne() { a.left = min(a.left+1, a.most) }

// spendAllowance takes from an allowance, and reports whether there was enough.
func (c *Client) spendAllowance(a *allowance) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.left < a.price {
		return false
	}
	a.left -= a.price
	return true
}
