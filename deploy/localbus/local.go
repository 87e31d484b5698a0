// Package localbus has the records of a machine's buses that its processes read: the [Identity]
// that all of them share, and a file for each running [Bus] with its address.
//
// A bus writes its file into its folder of the state folder (package natsserver). Other processes
// find it there with [List] and connect with a join string of the identity (package busconn).
package localbus

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// FileName is the name of the file in which a bus leaves its address.
const FileName = "bus.json"

// Bus is the content of the file of a running bus. The secrets are in the [Identity].
type Bus struct {
	PID int `json:"pid"`
	// Listen is the IP:PORT at which it listens. 0.0.0.0 is each IPv4 address of this machine, and ::
	// or no IP is each address.
	Listen string `json:"listen"`
	// Advertise is the HOST or HOST:PORT for other machines. Empty for the addresses of this one.
	Advertise string `json:"advertise,omitempty"`
	// Dir is the folder of the file, as [List] found it.
	Dir string `json:"-"`
}

// Write writes the file of a bus.
func (b Bus) Write(path string) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// LocalAddress returns the address for processes of this machine.
func (b Bus) LocalAddress() string {
	host, port, _ := net.SplitHostPort(b.Listen)
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Listens reports whether a process listens at the local address. A bus that was killed leaves its
// file.
func (b Bus) Listens() bool {
	conn, err := net.DialTimeout("tcp", b.LocalAddress(), 5*time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// Addresses returns the addresses at which other machines reach the bus, the best first. There are
// none if it listens to this machine alone and advertises nothing.
func (b Bus) Addresses() (list []string) {
	host, port, _ := net.SplitHostPort(b.Listen)
	if b.Advertise != "" {
		if _, _, err := net.SplitHostPort(b.Advertise); err == nil {
			return []string{b.Advertise}
		}
		return []string{net.JoinHostPort(strings.Trim(b.Advertise, "[]"), port)}
	}

	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.IsLoopback():
		return nil
	case err == nil && !ip.IsUnspecified():
		return []string{b.Listen}
	}

	for _, address := range MachineAddresses() {
		if ip.Is4() && !address.Is4() { // the bus takes no IPv6 connections then
			continue
		}
		list = append(list, net.JoinHostPort(address.String(), port))
	}

	return list[:min(len(list), maxAddresses)]
}

// JoinAddresses returns the addresses of the bus for a join string: those for other machines, or
// the local one if no other machine reaches it.
func (b Bus) JoinAddresses() []string {
	if list := b.Addresses(); len(list) > 0 {
		return list
	}
	return []string{b.LocalAddress()}
}

// List returns the buses whose files are in a state folder. Some may be gone.
func List(state string) (list []Bus) {
	files, _ := filepath.Glob(filepath.Join(state, "*", FileName)) // the pattern is good
	for _, file := range files {
		var b Bus
		if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &b) == nil {
			b.Dir = filepath.Dir(file)
			list = append(list, b)
		}
	}

	return list
}
