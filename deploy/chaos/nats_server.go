package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// password is the password of all users of a cluster's nodes.
const password = "chaos"

// passwordName matches the names of passwords in promptmill's configuration for a NATS server.
var passwordName = regexp.MustCompile(`\$(PROMPTMILL_\w+_PASSWORD)`)

// writeNodes writes the configurations of the nodes of a cluster into dir, with the users
// that promptmill wants there. Their clients must know no way to them but their links, hence
// no_advertise. It returns the environment of the nodes.
func writeNodes(ctx context.Context, promptmill, dir string, clients, routes []string) (env []string, err error) {
	users, err := exec.CommandContext(ctx, promptmill, "nats-config").Output()
	if err != nil {
		return nil, fmt.Errorf("promptmill nats-config: %w", err)
	}

	if err := os.WriteFile(filepath.Join(dir, "promptmill.conf"), users, 0o644); err != nil {
		return nil, err
	}

	for _, hit := range passwordName.FindAllSubmatch(users, -1) {
		env = append(env, string(hit[1])+"="+password)
	}

	for i := range clients {
		text := fmt.Sprintf("server_name: node%d\nlisten: %q\ninclude promptmill.conf\nmax_payload: 1048576\njetstream { store_dir: %q, sync_interval: 1s }\n"+
			"cluster { name: pm, listen: %q, no_advertise: true, routes: [\"nats://%s\"] }\n",
			i+1, clients[i], filepath.Join(dir, fmt.Sprintf("node%d", i+1)), routes[i],
			strings.Join(routes, `", "nats://`))
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("node%d.conf", i+1)), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}

	return env, nil
}
