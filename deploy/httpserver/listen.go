package httpserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/promptmill/promptmill/deploy/exit"
)

// loopback is the host of an address without one: only this machine can connect.
const loopback = "127.0.0.1"

// ParseAddress parses [HOST:]PORT. Without a host it is 127.0.0.1. The error says what is wrong with
// the address, without naming it.
func ParseAddress(address string) (hostPort string, err error) {
	if scheme, _, isURL := strings.Cut(address, "://"); isURL {
		return "", fmt.Errorf("leave out %s://", scheme)
	}

	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil && strings.Count(address, ":") > 1 && !strings.HasPrefix(address, "["):
		return "", errors.New("an IPv6 address is written in brackets, as in [::]:8080")
	case err != nil && strings.Trim(address, "0123456789") == "" && address != "":
		host, port = "", address
	case err != nil:
		return "", errors.New("it has no port")
	case host == "" && strings.HasPrefix(address, ":"):
		host = ""
	}

	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}

	if host == "" {
		host = loopback
	}

	return net.JoinHostPort(host, port), nil
}

// CheckListen returns the error of [Listen] if this process cannot listen at an address, so that a
// program can refuse it before it changes anything.
func CheckListen(flag, address string) error {
	l, err := listen(flag, address)
	if err != nil {
		return err
	}
	return l.Close()
}

// listen listens at HOST:PORT. flag has the address, for errors.
func listen(flag, address string) (net.Listener, error) {
	network := "tcp"
	host, _, _ := net.SplitHostPort(address)
	if host == "0.0.0.0" {
		network = "tcp4" // Go would listen at all IPv6 addresses too
	}

	l, err := net.Listen(network, address)
	if err == nil {
		return l, nil
	}

	name, _ := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint := "choose another port with " + flag + " [HOST:]PORT"
		if free := nextFreePort(address); free != "" {
			hint += ", for example " + free
		}
		return nil, exit.Usage(hint, "cannot listen at %s: another process has this port already", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, exit.Usage("0.0.0.0 is all IPv4 addresses of this machine", "%s %s: this machine has no address %s",
			flag, address, host)
	case errors.Is(err, os.ErrPermission):
		return nil, exit.Usage("choose a port from 1024 on with "+flag+" [HOST:]PORT",
			"cannot listen at %s: this user may not use that port", address)
	case name != nil:
		return nil, exit.Usage("0.0.0.0 is all IPv4 addresses of this machine", "%s %s: no address has the name %s",
			flag, address, name.Name)
	}

	return nil, exit.Usage("choose another address with "+flag+" [HOST:]PORT", "cannot listen at %s: %w", address, err)
}

// nextFreePort returns the address with the next port at which this process can listen, or an empty
// string.
func nextFreePort(address string) string {
	host, text, _ := net.SplitHostPort(address)
	port, err := strconv.Atoi(text)
	if err != nil {
		return ""
	}

	for next := port + 1; next <= min(port+20, 65535); next++ {
		free := net.JoinHostPort(host, strconv.Itoa(next))
		if l, err := net.Listen("tcp", free); err == nil {
			l.Close()
			return free
		}
	}

	return ""
}

// IsLoopback reports whether only this machine can connect to HOST:PORT.
func IsLoopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}

	// A name: each of its addresses counts.
	all, err := net.LookupIP(host)
	if err != nil || len(all) == 0 {
		return false
	}

	for _, ip := range all {
		if !ip.IsLoopback() {
			return false
		}
	}

	return true
}
