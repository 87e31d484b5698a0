package natsserver

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
)

// serverName is the name of each server of ours, which it sends to each client.
const serverName = "promptmill"

// CheckListen returns an error with a hint if this process cannot listen at an address,
// HOST:PORT. An empty one is [Loopback]. state is the state folder, which lists the buses of
// this machine. The server itself only reports that it does not get ready.
func CheckListen(address, state string) error {
	if address == "" {
		return nil // the default
	}

	l, err := net.Listen("tcp", address)
	if err == nil {
		return l.Close()
	}

	host, _, _ := net.SplitHostPort(address)
	name, _ := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint := "choose another port with --listen HOST:PORT"
		if free := nextFreePort(address); free != "" {
			hint += ", for example " + free
		}
		return exit.WithHint(fmt.Errorf("cannot listen at %s: %s has this port already", address,
			describeListener(address, state)), hint)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return exit.Usage("0.0.0.0 is all IPv4 addresses of this machine, and --advertise names another one for other boxes",
			"--listen %s: this machine has no address %s", address, host)
	case errors.Is(err, os.ErrPermission):
		return exit.WithHint(fmt.Errorf("cannot listen at %s: this user may not use that port", address),
			"choose a port from 1024 on with --listen HOST:PORT")
	case name != nil:
		return exit.Usage("0.0.0.0 is all IPv4 addresses of this machine", "--listen %s: no address has the name %s",
			address, name.Name)
	}

	return exit.WithHint(fmt.Errorf("cannot listen at %s: %w", address, err),
		"choose another address with --listen HOST:PORT")
}

// describeListener describes the process that listens at an address of this machine.
func describeListener(address, state string) string {
	_, port, _ := net.SplitHostPort(address)
	here := localbus.Bus{Listen: address}.LocalAddress()
	for _, b := range localbus.List(state) {
		if _, taken, _ := net.SplitHostPort(b.Listen); taken == port && isOurs(here) {
			return fmt.Sprintf("the promptmill of process %d", b.PID)
		}
	}

	if isOurs(here) {
		return "another promptmill"
	}

	return "another program"
}

// isOurs reports whether a server of ours listens at an address: a NATS server names itself first.
func isOurs(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()

	conn.SetReadDeadline(time.Now().Add(time.Second))
	line, _ := bufio.NewReader(conn).ReadString('\n') // a part of it is of no use below
	text, found := strings.CutPrefix(line, "INFO ")

	var info struct {
		Name string `json:"server_name"`
	}

	return found && json.Unmarshal([]byte(text), &info) == nil && info.Name == serverName
}

// nextFreePort returns the address with the next port at which this process can listen, or an empty
// string.
func nextFreePort(address string) string {
	host, port, err := ParseAddress(address)
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

// takesOnlyIPv4 reports whether a server that listens at an address takes IPv4 connections alone.
func takesOnlyIPv4(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	return host == netip.IPv4Unspecified().String()
}

// errIPv6 refuses a client that comes over IPv6.
var errIPv6 = errors.New("this bus listens at 0.0.0.0, and takes no connection over IPv6")

// refuseIPv6 refuses the TLS handshake of a client that comes over IPv6. Go opens a socket for both
// families at 0.0.0.0 ([net.Listen]), and the server has no option for another one.
func refuseIPv6(client *tls.ClientHelloInfo) (*tls.Config, error) {
	if from, ok := client.Conn.RemoteAddr().(*net.TCPAddr); ok && from.IP.To4() == nil {
		return nil, errIPv6
	}
	return nil, nil // the configuration of the server holds
}
