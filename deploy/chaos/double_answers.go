package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A model server, or a proxy before it, may answer some requests twice. A client that takes
// the second answer for the answer of the next request has the wrong one.

// doublingListener makes connections that may answer twice.
type doublingListener struct {
	net.Listener

	mu     sync.Mutex
	rate   float64 // of the answers that come twice
	random *rand.Rand
}

func (l *doublingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}

	return &doublingConn{Conn: conn, listener: l}, nil
}

// set makes a share of the answers come twice, by numbers that follow from the seed.
func (l *doublingListener) set(rate float64, dice uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate, l.random = rate, rand.New(rand.NewPCG(dice, 5))
}

// draw says whether an answer comes twice, and how long after the first time.
func (l *doublingListener) draw() (twice bool, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 || l.random.Float64() >= l.rate {
		return false, 0
	}

	return true, time.Duration(l.random.Int64N(int64(5 * time.Millisecond)))
}

// doublingConn writes some answers twice.
type doublingConn struct {
	net.Conn
	listener *doublingListener
	mu       sync.Mutex // so that no answer comes within another
}

func (c *doublingConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()

	n, err := c.Conn.Write(p)
	if err != nil || !isAnswer(p) {
		return n, err
	}

	if twice, after := c.listener.draw(); twice {
		again := bytes.Clone(p)
		time.AfterFunc(after, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.Conn.Write(again) // the client may have gone
		})
	}

	return n, nil
}

// isAnswer reports whether one write is a whole answer to a request for a
// completion.
func isAnswer(p []byte) bool {
	head, body, ok := bytes.Cut(p, []byte("\r\n\r\n"))
	if !ok || !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) || !bytes.HasPrefix(body, []byte(`{"id":"chatcmpl-`)) {
		return false
	}

	_, length, _ := bytes.Cut(head, []byte("\r\nContent-Length: "))
	length, _, _ = bytes.Cut(length, []byte("\r\n"))
	n, err := strconv.Atoi(string(length))

	return err == nil && n == len(body)
}

// injectDoubleAnswers has a model server answer every tenth request twice.
func injectDoubleAnswers(d *deployment, e event) error {
	return d.setDoubleAnswers(e, 0.1)
}

func clearDoubleAnswers(d *deployment, e event) error {
	return d.setDoubleAnswers(e, 0)
}

func (d *deployment) setDoubleAnswers(e event, rate float64) error {
	query := url.Values{"twice": {fmt.Sprint(rate)}, "dice": {fmt.Sprint(e.seed)}}
	client := http.Client{Timeout: 2 * time.Second}
	answer, err := client.Post("http://"+d.modelAddress[e.target]+"/chaos?"+query.Encode(), "", nil)
	if err != nil {
		return nil //nolint:nilerr // a server that is away answers nothing
	}

	return answer.Body.Close()
}

// findSwapped looks for lines with the answer of another request, from a model server that
// answered twice then. Such a second answer may be taken once on each connection before it is
// found out; more is not borne. It returns the inputs as these lines have them, and how many
// lines there are.
func findSwapped(
	inputs map[string][]expected, lines map[string][]line, executed map[string][]execution, twice []disruption,
	found *findings,
) (borne map[string][]expected, n int) {
	byAnswer := map[string]expected{}
	for _, input := range inputs {
		for _, w := range input {
			byAnswer[w.answer] = w
		}
	}

	borne, most := map[string][]expected{}, map[string]int{}
	for _, h := range twice {
		most[h.models[0]] += mostInFlight
	}

	taken := map[string]int{}
	for run, input := range inputs {
		borne[run] = slices.Clone(input)
		for _, l := range lines[run] {
			seq := l.Extras.Seq
			if seq < 0 || seq >= len(input) || l.Response == nil {
				continue
			}

			other, ok := byAnswer[l.answerText()]
			switch {
			case l.Response.Status == 400: // which one's refusal it is, it does not say
				other, ok = expected{refused: true}, !input[seq].refused && most[l.Extras.Worker] > 0
			case other.answer == input[seq].answer:
				ok = false
			default:
				other.refused = false
				ok = ok && slices.ContainsFunc(twice, func(h disruption) bool {
					return h.models[0] == l.Extras.Worker && slices.ContainsFunc(executed[other.answer], h.mayLose)
				})
			}

			if !ok {
				continue // if it is wrong, checkOutput finds it
			}

			taken[l.Extras.Worker]++
			n++
			w := &borne[run][seq]
			w.answer, w.in, w.out, w.refused = other.answer, other.in, other.out, other.refused
		}
	}

	for worker, n := range taken {
		if n > most[worker] {
			found.add("%s: %d answers were taken for those of other requests; its model server answered twice, and it had %d connections at most in these times",
				worker, n, most[worker])
		}
	}

	return borne, n
}
