package modelservers

import (
	"cmp"
	"errors"
	"net"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// simpleCommand is a command of a script, as the shell would run it.
type simpleCommand struct {
	set   map[string]string // variables, before it
	words []string
}

var programNames = regexp.MustCompile(`vllm|sglang|llama-server|llama-swap|ollama|trtllm-serve|dynamo|lmdeploy|text-generation-launcher|mistralrs|koboldcpp`)

// usualPorts are the ports of the known programs.
var usualPorts = map[string]string{
	"vllm":                     "8000",
	"sglang":                   "30000",
	"llama-server":             "8080", // of its next versions 9931; see pinPort
	"llama-swap":               "8080",
	"ollama":                   "11434",
	"trtllm-serve":             "8000",
	"dynamo":                   "8000",
	"lmdeploy":                 "23333",
	"text-generation-launcher": "3000",
	"mistralrs":                "1234",
	"koboldcpp":                "5001",
}

// commandURL returns the URL of the server of a command: at the host and port that it names, or
// else at the usual port of its program, the first that it names: models also have such names.
func commandURL(command string) string {
	c := findServer(readScript(command))
	host, port := c.listenAddress()

	return "http://" + net.JoinHostPort(host, port)
}

// NamesServer reports whether a command names a known program or a port, so that the URL of its server is more than a
// guess.
func NamesServer(command string) bool {
	c := findServer(readScript(command))
	return c.knownProgram() != "" || c.namedPort() != ""
}

// llamaPort is the variable that llama-server has its port from, if no option names it.
const llamaPort = "LLAMA_ARG_PORT"

// pinPort has a llama-server listen at its usual port, if the command names none: another one
// is announced for its next versions (ggml-org/llama.cpp#26508), and which it has by itself
// does not show before it listens.
func pinPort(command string) string {
	c := findServer(readScript(command))
	if c.knownProgram() != "llama-server" || c.namedPort() != "" || c.isRemote() || os.Getenv(llamaPort) != "" {
		return command
	}
	return llamaPort + "=" + usualPorts["llama-server"] + " " + command
}

// asOneCommand returns a script as the one command that a supervise.Process takes: a simple command without exec, which
// the supervisor puts before it, and any other script as that of a shell of its own. What the shell refuses, and what
// it would start in the background, stays as it is.
func asOneCommand(script string) string {
	file, err := syntax.NewParser().Parse(strings.NewReader(script), "")
	if err != nil || len(file.Stmts) == 0 {
		return script
	}

	stmt := file.Stmts[0]
	call, isCall := stmt.Cmd.(*syntax.CallExpr)
	switch {
	case len(file.Stmts) == 1 && stmt.Background:
		return script
	case len(file.Stmts) > 1 || !isCall || stmt.Negated || len(call.Args) == 0:
		return "/bin/sh -c " + quoteWord(script)
	case call.Args[0].Lit() == "exec" && len(call.Args) > 1:
		return script[:call.Args[0].Pos().Offset()] + script[call.Args[1].Pos().Offset():]
	}

	return script
}

// findServer is the command of a script that is the server: the first of a known program, or
// else the last that names a port.
func findServer(list []simpleCommand) (server simpleCommand) {
	for _, c := range list {
		if c.knownProgram() != "" {
			return c
		}
		if c.namedPort() != "" || server.words == nil {
			server = c
		}
	}

	return server
}

// knownProgram is the known program that the command runs, or empty.
func (c simpleCommand) knownProgram() string {
	return programNames.FindString(strings.Join(c.words, " "))
}

// listenAddress returns where the command's server answers, as seen from this host.
func (c simpleCommand) listenAddress() (host, port string) {
	port = usualPorts["vllm"]
	if usual := usualPorts[c.knownProgram()]; usual != "" {
		port = usual
	}

	host = c.optionValue("--host")
	if at := c.set["OLLAMA_HOST"]; at != "" && c.knownProgram() == "ollama" {
		host = at
		if h, p, err := net.SplitHostPort(at[strings.LastIndex(at, "/")+1:]); err == nil {
			host, port = h, p
		}
	}

	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() || c.isRemote() {
		host = "localhost"
	}

	if named := c.namedPort(); named != "" {
		port = named
	}

	return host, port
}

// isRemote reports whether the command listens in another network, so that its address
// means nothing here.
func (c simpleCommand) isRemote() bool {
	return len(c.words) > 0 && slices.Contains([]string{"docker", "podman", "nerdctl", "ssh"}, path.Base(c.words[0]))
}

// namedPort is the port that the command names, or empty. That which a container publishes is
// the one to be reached; the -p of ssh is another host's.
func (c simpleCommand) namedPort() string {
	if c.isRemote() && path.Base(c.words[0]) != "ssh" {
		for _, name := range []string{"-p", "--publish"} {
			parts := strings.Split(c.optionValue(name), ":") // host address, host port, port in the container
			if len(parts) > 1 && isPort(parts[len(parts)-2]) {
				return parts[len(parts)-2]
			}
		}
	}

	for _, name := range []string{"--port", "--server-port", "--http-port"} {
		if port := c.optionValue(name); isPort(port) {
			return port
		}
	}

	if _, port, err := net.SplitHostPort(c.optionValue("--listen")); err == nil && isPort(port) {
		return port
	}

	if port := c.optionValue("-p"); isPort(port) && !c.isRemote() {
		return port
	}

	if port := cmp.Or(c.set[llamaPort], os.Getenv(llamaPort)); isPort(port) && c.knownProgram() == "llama-server" &&
		!c.isRemote() {
		return port
	}

	return ""
}

// optionValue is the value of an option, the last if there are several, as argparse has it.
func (c simpleCommand) optionValue(name string) (value string) {
	for i, word := range c.words {
		if word == name && i+1 < len(c.words) {
			value = c.words[i+1]
		}
		if after, ok := strings.CutPrefix(word, name+"="); ok {
			value = after
		}
	}

	return value
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// readScript returns the commands of a script in their order, those of shells that it starts
// among them. A script that the shell would refuse is taken for a list of words.
func readScript(script string) (list []simpleCommand) {
	file, err := syntax.NewParser().Parse(strings.NewReader(script), "")
	if err != nil {
		return []simpleCommand{{words: strings.Fields(script)}}
	}

	syntax.Walk(file, func(node syntax.Node) bool {
		call, ok := node.(*syntax.CallExpr)
		if !ok {
			return true
		}

		c := readCall(call)
		if inner := c.shellScript(); inner != "" {
			list = append(list, readScript(inner)...)
		} else if len(c.words) > 0 {
			list = append(list, c)
		}

		return true
	})

	return list
}

// readCall returns a simple command of a script, expanded as the shell would.
func readCall(call *syntax.CallExpr) simpleCommand {
	cfg := &expand.Config{
		Env: expand.ListEnviron(os.Environ()...),
		ProcSubst: func(*syntax.ProcSubst) (string, error) {
			return "", errors.New("no process is started to read a command")
		},
	}

	c := simpleCommand{set: map[string]string{}}
	for _, a := range call.Assigns {
		if value, err := expand.Literal(cfg, a.Value); err == nil && a.Name != nil {
			c.set[a.Name.Value] = value
		}
	}

	for _, word := range call.Args {
		fields, err := expand.Fields(cfg, word)
		if err != nil { // the output of a command, for example
			continue
		}
		c.words = append(c.words, fields...)
	}

	return c
}

// shellScript returns the script that a shell gets with -c, or "".
func (c simpleCommand) shellScript() string {
	for i, word := range c.words {
		if !slices.Contains([]string{"sh", "bash", "dash", "zsh", "ksh"}, path.Base(word)) {
			continue
		}

		for j := i + 1; j+1 < len(c.words) && strings.HasPrefix(c.words[j], "-"); j++ {
			if !strings.HasPrefix(c.words[j], "--") && strings.HasSuffix(c.words[j], "c") {
				return c.words[j+1]
			}
		}
	}

	return ""
}
