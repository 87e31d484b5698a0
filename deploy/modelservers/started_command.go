package modelservers

import (
	"cmp"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
)

// The placeholders of a [Command].
const (
	portName = "port"
	gpuName  = "gpu"
)

// Command starts a model server.
type Command struct {
	// Script is the command, which a shell reads. {port} stands for a free port of this host, which the
	// server keeps when it is started again, or for that of URL; {gpu} for GPUs. Required.
	Script string
	// URL is the address at which the server answers. Defaults to the host and port that the command names, else
	// the usual port of its program. One of several commands that names no port gets a free one if its program is
	// known.
	URL string
	// GPUs are the numbers or ids of the graphics cards that the server sees, in CUDA_VISIBLE_DEVICES, with
	// commas between them. Defaults to none: to those that the command or the environment names, or all.
	GPUs string
	// LogName is the name of its log in Config.StateDir. Defaults to server-PORT.log.
	LogName string
}

// The variables with the graphics cards that a program sees. Programs for AMD's cards read the first two, and vLLM
// refuses to start if they differ. The third hides cards from both, which number the others from 0 on
// (https://rocm.docs.amd.com/en/latest/conceptual/gpu-isolation.html).
const (
	visibleDevices = "CUDA_VISIBLE_DEVICES"
	visibleHIP     = "HIP_VISIBLE_DEVICES"
	visibleROCr    = "ROCR_VISIBLE_DEVICES"
)

// deviceOrder is the variable that says how CUDA numbers the cards. By itself it begins with the fastest;
// nvidia-smi has them in the order of the bus.
const (
	deviceOrder = "CUDA_DEVICE_ORDER"
	busOrder    = "PCI_BUS_ID"
)

// startPlan is a command with its address and port.
type startPlan struct {
	Command

	url     string // empty: at the port that is found
	addPort bool   // --port is added
}

// planStarts returns how commands are started. The error says what is wrong with one of them.
func planStarts(commands []Command) (plans []startPlan, err error) {
	users := map[string]int{} // of each URL
	for _, c := range commands {
		p, err := c.planStart(len(commands) > 1)
		if err != nil {
			return nil, err
		}

		if p.url != "" {
			if users[p.url]++; users[p.url] > 1 {
				return nil, exit.Usage("write {port} where each command has its port, such as --port {port}",
					"--exec starts %d servers, and more than one would listen at %s", len(commands), p.url)
			}
		}

		plans = append(plans, p)
	}

	return plans, nil
}

// planStart returns how a command is started, alone or with others.
func (c Command) planStart(withOthers bool) (p startPlan, err error) {
	if strings.TrimSpace(c.Script) == "" {
		return p, exit.Usage(`for example --exec "vllm serve MODEL"`, "--exec: there is no command")
	}

	if err := c.checkGPUs(); err != nil {
		return p, err
	}

	filled, err := c.fill(usualPorts["vllm"])
	if err != nil {
		return p, exit.Usage("", "--exec: %w", err)
	}

	p = startPlan{Command: c, url: c.URL}
	server := findServer(readScript(filled))
	switch {
	case c.URL != "" || c.has(portName):
	case !withOthers || server.namedPort() != "":
		p.url = commandURL(filled)
	default:
		if server.isRemote() {
			return p, exit.Usage("write {port} there, such as -p {port}:8000",
				"--exec starts several servers, and this command does not say at which port of this host its own answers: %s",
				c.Script)
		}
		if _, err := FindLaunch(filled); err != nil {
			return p, exit.Usage("write {port} where the command has its port",
				"--exec starts several servers, and a port cannot be added to this command: %w: %s", err, c.Script)
		}
		p.addPort = true
	}

	return p, nil
}

// checkGPUs returns an error if the server would not see the cards that it is meant to see.
func (c Command) checkGPUs() error {
	if c.GPUs == "" {
		if c.has(gpuName) {
			return exit.Usage("give --gpus all, or --gpus 0,1", "--exec has {gpu}, and there is no --gpus: %s", c.Script)
		}
		return nil
	}

	server := findServer(readScript(c.Script))
	switch {
	case c.has(gpuName):
		return nil
	case server.isRemote():
		return exit.Usage(`write {gpu} there, such as docker run --gpus device={gpu}`,
			"--gpus sets CUDA_VISIBLE_DEVICES, which does not reach the server of this command: %s", c.Script)
	}

	for _, name := range []string{visibleDevices, visibleHIP} {
		if server.ownVariable(name) != "" {
			return exit.Usage("leave it out, or write "+name+"={gpu}",
				"--gpus sets %s, and so does the command: %s", name, c.Script)
		}
	}

	return nil
}

// has reports whether the command has a placeholder.
func (c Command) has(name string) bool {
	if !strings.Contains(c.Script, "{"+name+"}") {
		return false
	}
	t, err := ParseTemplate(c.Script)
	return err != nil || t.Has(name)
}

// fill returns the script with a port and its cards. A script without these placeholders stays as it is.
func (c Command) fill(port string) (string, error) {
	if !c.has(portName) && !c.has(gpuName) {
		return c.Script, nil
	}

	t, err := ParseTemplate(c.Script)
	if err != nil {
		return "", err
	}

	return t.Fill(map[string]string{portName: port, gpuName: c.GPUs})
}

// ownVariable returns the value of a variable that a command sets itself, also by env and docker run -e.
func (c simpleCommand) ownVariable(name string) string {
	value := c.set[name]
	for _, word := range c.words {
		if after, ok := strings.CutPrefix(word, name+"="); ok {
			value = after
		}
	}
	return value
}

// start returns the command for a supervise.Process, and where its server answers. hold finds a port for
// it.
func (p startPlan) start(hold func() (*heldPort, error)) (command, at string, port *heldPort, err error) {
	number := ""
	if p.addPort || p.url == "" {
		if port, err = hold(); err != nil {
			return "", "", nil, err
		}
		number = strconv.Itoa(port.number)
	} else if number, err = portOf(p.url); err != nil {
		return "", "", nil, err
	}

	script, err := p.fill(number)
	if err == nil && p.addPort {
		script, err = addPort(script, number)
	}
	if err != nil {
		port.release()
		return "", "", nil, err
	}

	if at = p.url; at == "" {
		at = "http://" + net.JoinHostPort(listenHost(script), number)
	}

	return p.gpuVariables() + pinPort(asOneCommand(script)), at, port, nil
}

// addPort adds a port to the command of a known program.
func addPort(script, port string) (string, error) {
	launch, err := FindLaunch(script)
	if err != nil {
		return "", err
	}
	return launch.Add("--port", port), nil
}

// portOf returns the port of a URL.
func portOf(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]), nil
}

// listenHost returns the host at which the server of a command that has a port answers.
func listenHost(script string) string {
	host, _ := findServer(readScript(script)).listenAddress()
	if host == "localhost" {
		return "127.0.0.1" // no server listens at ::1 alone unless it is named
	}
	return host
}

// gpuVariables returns the variables that show the server its cards, to be put before a command.
func (p startPlan) gpuVariables() string {
	if p.GPUs == "" {
		return ""
	}

	variables := visibleDevices + "=" + quoteWord(p.GPUs) + " "
	if os.Getenv(visibleHIP) != "" {
		variables = visibleHIP + "=" + quoteWord(p.GPUs) + " " + variables
	}
	if p.setsOrder() {
		variables = deviceOrder + "=" + busOrder + " " + variables
	}

	return variables
}

// setsOrder reports whether CUDA has to be asked to number the cards as nvidia-smi does. Where the environment has its
// own CUDA_VISIBLE_DEVICES, its numbers stay as they are.
func (p startPlan) setsOrder() bool {
	return p.GPUs != "" && os.Getenv(visibleDevices) == "" && os.Getenv(deviceOrder) == ""
}

// gpusOf returns the cards that the server of a command sees, as Command.GPUs; empty: unknown. isOrdered
// reports whether their numbers are surely those of nvidia-smi.
func (p startPlan) gpusOf() (cards string, isOrdered bool) {
	server := findServer(readScript(p.Script))
	order := cmp.Or(server.ownVariable(deviceOrder), os.Getenv(deviceOrder))

	cards = cmp.Or(p.GPUs, server.ownVariable(visibleDevices))
	if cards == "" && !server.isRemote() {
		cards = os.Getenv(visibleDevices)
	}

	return cards, p.setsOrder() || order == busOrder
}
