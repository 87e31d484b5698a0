package modelservers

import (
	"net"
	"testing"
)

// A port is held until it is released, also while nothing listens at it; one that is in use is left alone.
func TestHoldPort(t *testing.T) {
	t.Parallel()

	first, err := holdPort()
	if err != nil {
		t.Fatal(err)
	}
	defer first.release()

	server, err := net.Listen("tcp", loopback(first.number)) // as a server that was started does
	if err != nil {
		t.Fatalf("the server cannot have the port that is held for it: %v", err)
	}
	server.Close()

	second, err := holdPort()
	if err != nil {
		t.Fatal(err)
	}
	defer second.release()

	if second.number == first.number {
		t.Fatalf("port %d is held twice", first.number)
	}

	if first.number < firstPort || second.number > lastPort {
		t.Errorf("ports %d and %d are out of range", first.number, second.number)
	}

	used, err := net.Listen("tcp", net.JoinHostPort("", "0")) // at all addresses
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()

	if err := probePort(used.Addr().(*net.TCPAddr).Port); err == nil {
		t.Error("a port in use counts as free")
	}
}
