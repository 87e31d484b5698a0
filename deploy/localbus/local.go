// Package localbus has the records of a machine's buses that its processes read: the [Identity]
// that all of them share, and a file for each running [Bus] with its address.
//
// A bus writes its file into its folder of the state folder (package natsserver). Other processes
// find it there with [List] and connect with a join string of the identity (package busconn).
package localbus

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
)

// FileName is the name of the file in which a bus leaves its address.
const FileName = "bus.json"

// Bus is the content of the file of a running bus. The secrets are in the [Identity].
type Bus struct {
	PID int `json:"pid"`
	// Listen is the HOST:PORT at which it listens.
	Listen string `json:"listen"`
	// Advertise is the HOST or HOST:PORT for other machines. Empty for the addresses of this one.
	Advertise string `json:"advertise,omitempty"`
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

// Addresses returns the addresses at which other machines reach a bus that listens at an address.
func Addresses(listen, advertise string) []string {
	host, port, _ := net.SplitHostPort(listen)
	if advertise != "" {
		if _, _, err := net.SplitHostPort(advertise); err == nil {
			return []string{advertise}
		}
		return []string{net.JoinHostPort(advertise, port)}
	}

	if ip := net.ParseIP(host); host != "" && !ip.IsUnspecified() {
		return []string{listen}
	}

	var list []string
	for _, ip := range MachineAddresses() {
		list = append(list, net.JoinHostPort(ip, port))
	}

	return append(list, net.JoinHostPort("127.0.0.1", port))
}

// MachineAddresses returns up to four addresses of this machine for other machines: a join string
// is pasted by hand.
func MachineAddresses() (list []string) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}

	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && len(list) < 4 {
			list = append(list, n.IP.String())
		}
	}

	return list
}

// List returns the buses whose files are in a state folder. Some may be gone.
func List(state string) (list []Bus) {
	files, _ := filepath.Glob(filepath.Join(state, "*", FileName)) // the pattern is good
	for _, file := range files {
		var b Bus
		if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &b) == nil {
			list = append(list, b)
		}
	}

	return list
}
