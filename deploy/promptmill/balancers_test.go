package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/worker/sim"
)

// balancer is a load balancer as people have it in front of their replicas.
type balancer struct {
	name   string
	args   []string // of the program, which is the first; FILE stands for the configuration's path
	config string   // FOLDER, LISTEN, FIRST and SECOND are put in
}

const nginxConfig = `daemon off; master_process off; pid FOLDER/pid; error_log FOLDER/log;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path FOLDER/1; proxy_temp_path FOLDER/2; fastcgi_temp_path FOLDER/3; uwsgi_temp_path FOLDER/4; scgi_temp_path FOLDER/5;
	upstream llm { %s server FIRST; server SECOND; keepalive 64; }
	server { listen LISTEN; location / { proxy_pass http://llm; } }
}
`

const haproxyConfig = `defaults
	mode http
	timeout connect 5s
	timeout client 10m
	timeout server 10m
frontend in
	bind LISTEN
	default_backend llm
backend llm
	balance %s
	server a FIRST
	server b SECOND
`

const caddyConfig = `{
	admin off
	auto_https off
}
http://LISTEN {
	reverse_proxy FIRST SECOND {
		lb_policy %s
	}
}
`

func balancers() []balancer {
	nginx := []string{"nginx", "-p", "FOLDER", "-c", "FILE"}
	haproxy := []string{"haproxy", "-db", "-f", "FILE"}
	caddy := []string{"caddy", "run", "--adapter", "caddyfile", "--config", "FILE"}

	return []balancer{
		{"nginx, round robin", nginx, fmt.Sprintf(nginxConfig, "")},
		{"nginx, least_conn", nginx, fmt.Sprintf(nginxConfig, "least_conn;")},
		{"haproxy, roundrobin", haproxy, fmt.Sprintf(haproxyConfig, "roundrobin")},
		{"haproxy, leastconn", haproxy, fmt.Sprintf(haproxyConfig, "leastconn")},
		{"caddy, least_conn", caddy, fmt.Sprintf(caddyConfig, "least_conn")},
		{"caddy, random", caddy, fmt.Sprintf(caddyConfig, "random")},
	}
}

// start starts the load balancer in front of two servers and returns its URL.
func (b balancer) start(t *testing.T, first, second string) string {
	t.Helper()

	path, err := exec.LookPath(b.args[0])
	if err != nil {
		t.Skipf("SKIPPED: %s is needed", b.args[0])
	}

	probe, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	listen := probe.Addr().String()
	must(t, probe.Close())
	folder := t.TempDir()
	file := filepath.Join(folder, "config")
	put := strings.NewReplacer(
		"FOLDER", folder,
		"FILE", file,
		"LISTEN", listen,
		"FIRST", strings.TrimPrefix(first, "http://"),
		"SECOND", strings.TrimPrefix(second, "http://"),
	)

	must(t, os.WriteFile(file, []byte(put.Replace(b.config)), 0o600))

	var args []string
	for _, a := range b.args[1:] {
		args = append(args, put.Replace(a))
	}

	cmd, out := exec.Command(path, args...), &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "HOME="+folder, "XDG_DATA_HOME="+folder, "XDG_CONFIG_HOME="+folder)
	cmd.SysProcAttr = endWithTest()
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})

	poll(t, patience, "the load balancer answers", func() bool {
		res, err := http.Get("http://" + listen + "/v1/models")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode < http.StatusInternalServerError // or the server asks for a key
	})

	return "http://" + listen
}

// Behind a real load balancer two servers get more requests at once than one would, and it is
// said once why the gauges do not decide on that.
func TestBalancers(t *testing.T) {
	t.Parallel()

	tests := map[string]func(*testing.T){}
	for _, b := range balancers() {
		tests[b.name] = func(t *testing.T) {
			cfg := sim.Config{Slots: 8, TTFT: 50 * time.Millisecond, TPOT: 3 * time.Millisecond, Tokens: 40}
			first, second := newModel(t, cfg), newModel(t, cfg)
			url := b.start(t, first.url, second.url)
			c := newCommand(t)
			text, code := c.run("run", c.input("in.jsonl", 1200), "-o", "out.jsonl.zst", "--url", url,
				"--progress", "json")
			if code != 0 {
				t.Fatalf("exit code %d:\n%s", code, text)
			}

			said := "the metrics of " + url + " come from more than one server"
			if n := strings.Count(text, said); n != 1 {
				t.Errorf("several servers are reported %d times:\n%s", n, text)
			}

			most := 0 // in the last seconds; it tries less now and then
			limits := regexp.MustCompile(`"concurrency":([0-9]+)`).FindAllStringSubmatch(text, -1)
			for _, found := range limits[max(0, len(limits)-5):] {
				n, err := strconv.Atoi(found[1])
				must(t, err)
				most = max(most, n)
			}

			if most < 12 {
				t.Errorf("%d requests at once in the end, at two servers that run 8 each:\n%s", most, text)
			}

			if a, b := first.sim.Succeeded(), second.sim.Succeeded(); min(a, b) < 300 {
				t.Errorf("the servers answered %d and %d", a, b)
			}
		}
	}

	together(t, tests)
}
