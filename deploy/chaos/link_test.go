package main

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"
)

// echo answers each byte with itself.
func echo(t *testing.T) (address string) {
	t.Helper()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}

			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()

	return listener.Addr().String()
}

// ask sends a byte and waits for the answer for a while.
func ask(conn net.Conn, wait time.Duration) error {
	if _, err := conn.Write([]byte{1}); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(wait))
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

func TestLink(t *testing.T) {
	t.Parallel()

	l, err := newLink("link", echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()

	const long, moment = time.Minute, 50 * time.Millisecond
	anew := func() error { // a new connection may be reset while it is made
		conn, err := net.Dial("tcp", l.addresses[0])
		if err != nil {
			return err
		}
		defer conn.Close()
		return ask(conn, long)
	}

	conn, err := net.Dial("tcp", l.addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	if err := ask(conn, long); err != nil {
		t.Fatalf("a good link: %v", err)
	}

	l.setToxic(toxic{hang: true})
	if err := ask(conn, moment); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a link that hangs: %v", err)
	}

	l.setToxic(toxic{})
	conn.SetReadDeadline(time.Now().Add(long))

	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Errorf("what was sent while the link hung: %v", err)
	}

	l.setToxic(toxic{delay: moment})

	begin := time.Now()
	if err := ask(conn, long); err != nil || time.Since(begin) < 2*moment {
		t.Errorf("a slow link: %v after %s", err, time.Since(begin))
	}

	l.setToxic(toxic{cut: true})
	if err := ask(conn, long); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a link that is cut: %v", err)
	}

	if err := anew(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a new connection over a link that is cut: %v", err)
	}

	l.setToxic(toxic{loss: 1e9})
	if err := anew(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a link that loses all: %v", err)
	}

	l.setToxic(toxic{})
	if err := anew(); err != nil {
		t.Errorf("a link without its toxic: %v", err)
	}
}

// How far each flow comes follows from the seed, however its bytes are cut.
func TestLossFollowsFromDice(t *testing.T) {
	t.Parallel()

	reach := func(dice uint64, piece int) (bytes []int) {
		l, err := newLink("link")
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()

		l.setToxic(toxic{loss: 1.0 / 20_000, seed: dice})
		for range 50 {
			w, n := &flow{}, 0
			for l.awaitPass(w, piece) {
				n += piece
			}
			bytes = append(bytes, n/1000)
		}

		return bytes
	}

	coarse, fine := reach(5, 1000), reach(5, 100)
	if !slices.Equal(coarse, fine) {
		t.Errorf("the same dice lose after %v, and after %v in smaller pieces", coarse, fine)
	}

	if other := reach(6, 1000); slices.Equal(coarse, other) {
		t.Errorf("other dice lose after the same bytes: %v", other)
	}
}
