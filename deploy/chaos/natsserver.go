package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// serveNATS is a NATS server as a process: CONFIG.
func serveNATS(args []string) error {
	if len(args) != 1 {
		return errors.New("nats-server: want CONFIG")
	}
	opts, err := server.ProcessConfigFile(args[0])
	if err != nil {
		return err
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	s.WaitForShutdown()
	return nil
}

// writeNodes writes the configurations of the nodes of a cluster into dir. Their
// clients must know no way to them but their links, hence no_advertise.
func writeNodes(dir string, clients, routes []string) error {
	for i := range clients {
		text := fmt.Sprintf("server_name: node%d\nlisten: %q\nmax_payload: 1048576\njetstream { store_dir: %q, sync_interval: 1s }\n"+
			"cluster { name: pm, listen: %q, no_advertise: true, routes: [\"nats://%s\"] }\n",
			i+1, clients[i], filepath.Join(dir, fmt.Sprintf("node%d", i+1)), routes[i], strings.Join(routes, `", "nats://`))
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("node%d.conf", i+1)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
