package busconn

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// lostBus is a bus that was reached at an address and is lost.
func lostBus(home string) (*absence, *bytes.Buffer) {
	log := &bytes.Buffer{}
	a := &absence{log: zerolog.New(log), dialled: home}
	a.begin(func() {})
	a.lose(io.EOF)
	return a, log
}

// answer records the answer of an address, as dialling it does.
func (a *absence) answer(address, what string) {
	a.mu.Lock()
	defer a.mu.Unlock()

	a.dialled = address
	if address == a.home {
		a.otherSince = time.Time{}
	}

	a.record(what)
	a.warn()
}

// A lost bus is logged once, then at most once a minute with the answer of each address, and once
// when it is back.
func TestAbsenceIsLoggedOnceAMinute(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		a, log := lostBus("10.0.0.1:4333")
		for range 90 { // 3 minutes
			a.answer("10.0.0.1:4333", "connection refused")
			a.answer("10.8.0.1:4333", "no answer within 5s")
			time.Sleep(2 * time.Second)
		}

		a.end()

		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		want := []string{
			`"bus":"10.0.0.1:4333","cause":"it has closed the connection","message":"lost the bus; reconnecting"`,
			`"for":"1m0s","answers":"10.0.0.1:4333: connection refused; 10.8.0.1:4333: no answer within 5s"`,
			`"for":"2m0s","answers":"10.0.0.1:4333: connection refused; 10.8.0.1:4333: no answer within 5s"`,
			`"after":"3m0s","message":"reconnected to the bus"`,
		}
		if len(lines) != len(want) {
			t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), log)
		}

		for i, text := range want {
			if !strings.Contains(lines[i], text) {
				t.Errorf("line %d is %s, want %s", i, lines[i], text)
			}
		}
	})
}

// A bus is given up when another one answers at its own address for a while. At another address of
// its join string, another bus may always have been.
func TestOtherBusEndsConnectionAtItsAddress(t *testing.T) {
	t.Parallel()

	const home, elsewhere = "10.0.0.1:4333", "192.168.1.1:4333"
	for name, tt := range map[string]struct {
		answers [2]string // home, elsewhere; empty: another certificate
		gaveUp  bool
	}{
		"at its address":          {[2]string{"", "connection refused"}, true},
		"at both":                 {[2]string{"", ""}, true},
		"elsewhere":               {[2]string{"connection refused", ""}, false},
		"nothing at both of them": {[2]string{"connection refused", "no route to it"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				a, log := lostBus(home)
				for begin := time.Now(); time.Since(begin) <= GiveUpAfter && a.givenUpErr() == nil; {
					for i, address := range []string{home, elsewhere} {
						if tt.answers[i] != "" {
							a.answer(address, tt.answers[i])
							continue
						}

						a.mu.Lock()
						a.dialled = address
						a.mu.Unlock()
						a.recordOtherBus(errOtherCertificate)
					}

					time.Sleep(time.Second)
				}

				if err := a.givenUpErr(); errors.Is(err, errOtherCertificate) != tt.gaveUp {
					t.Errorf("given up because of %v, want %v:\n%s", err, tt.gaveUp, log)
				}
			})
		})
	}
}

// An error that the server repeats is logged once a minute.
func TestRepeatedErrorIsLoggedOnceAMinute(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		log := &bytes.Buffer{}
		a := &absence{log: zerolog.New(log)}
		for range 90 { // 3 minutes
			a.warnOfError(errors.New(`nats: permissions violation: Permissions Violation for Publish to "a"`))
			a.warnOfError(errors.New(`nats: permissions violation: Permissions Violation for Publish to "b"`))
			time.Sleep(2 * time.Second)
		}

		if n := strings.Count(log.String(), "\n"); n != 6 {
			t.Errorf("%d lines, want 6:\n%s", n, log)
		}

		if strings.Contains(log.String(), "nats:") {
			t.Errorf("the words of the client are in the log:\n%s", log)
		}
	})
}
