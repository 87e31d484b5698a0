package modelservers

import (
	"net"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

// closedListener is the lock of a port that no test takes.
type closedListener struct{ net.Listener }

func (closedListener) Close() error { return nil }

// holdPorts finds ports from 9000 on.
func holdPorts() func() (*heldPort, error) {
	next := 8999
	return func() (*heldPort, error) {
		next++
		return &heldPort{number: next, lock: closedListener{}}, nil
	}
}

// started returns the URL, a space and the command line of each command.
func started(t *testing.T, commands ...Command) (list []string) {
	t.Helper()

	plans, err := planStarts(commands)
	if err != nil {
		t.Fatal(err)
	}

	hold := holdPorts()
	for _, p := range plans {
		command, url, _, err := p.start(hold)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, url+" "+command)
	}

	return list
}

func TestStartCommands(t *testing.T) {
	t.Setenv(visibleDevices, "")
	t.Setenv(deviceOrder, "")
	t.Setenv(llamaPort, "")

	const cards = "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES="
	for name, tt := range map[string]struct {
		commands []Command
		want     []string
	}{
		"one": {[]Command{{Script: "vllm serve m"}}, []string{"http://localhost:8000 vllm serve m"}},
		"one at a URL": {
			[]Command{{Script: "./serve", URL: "http://10.0.0.1:7000"}},
			[]string{"http://10.0.0.1:7000 ./serve"},
		},
		"one at a free port": {
			[]Command{{Script: "./serve {port} a,b"}},
			[]string{"http://127.0.0.1:9000 ./serve 9000 a,b"},
		},
		"the port of a URL": {
			[]Command{{Script: "./serve {port}", URL: "http://10.0.0.1:7000"}},
			[]string{"http://10.0.0.1:7000 ./serve 7000"},
		},
		"at an address": {
			[]Command{{Script: "vllm serve m --host 10.0.0.1 --port {port}"}},
			[]string{"http://10.0.0.1:9000 vllm serve m --host 10.0.0.1 --port 9000"},
		},
		"two at ports of their own": {
			[]Command{{Script: "vllm serve a"}, {Script: "vllm serve b --port 8001"}},
			[]string{
				"http://127.0.0.1:9000 vllm serve a --port 9000",
				"http://localhost:8001 vllm serve b --port 8001",
			},
		},
		"a card each": {
			[]Command{{Script: "vllm serve m", GPUs: "0"}, {Script: "vllm serve m", GPUs: "2,3"}},
			[]string{
				"http://127.0.0.1:9000 " + cards + "0 vllm serve m --port 9000",
				"http://127.0.0.1:9001 " + cards + "2,3 vllm serve m --port 9001",
			},
		},
		"a script": {
			[]Command{{Script: "cd /m && vllm serve . --port {port}", GPUs: "1"}},
			[]string{"http://127.0.0.1:9000 " + cards + "1 /bin/sh -c 'cd /m && vllm serve . --port 9000'"},
		},
		"containers": {
			[]Command{
				{Script: "docker run --gpus device={gpu} -p {port}:8000 vllm/vllm-openai -m a", GPUs: "0"},
				{Script: "docker run --gpus device={gpu} -p {port}:8000 vllm/vllm-openai -m a", GPUs: "1"},
			},
			[]string{
				"http://127.0.0.1:9000 " + cards + "0 docker run --gpus device=0 -p 9000:8000 vllm/vllm-openai -m a",
				"http://127.0.0.1:9001 " + cards + "1 docker run --gpus device=1 -p 9001:8000 vllm/vllm-openai -m a",
			},
		},
		"a port made of the number of the card": {
			[]Command{{Script: "./serve --port 800{gpu}", GPUs: "0"}, {Script: "./serve --port 800{gpu}", GPUs: "1"}},
			[]string{
				"http://localhost:8000 " + cards + "0 ./serve --port 8000",
				"http://localhost:8001 " + cards + "1 ./serve --port 8001",
			},
		},
		"braces that are no placeholders": {
			[]Command{{Script: `awk '{print}' | ./serve --json '{"a": 1}' {{x}}`}},
			[]string{"http://localhost:8000 /bin/sh -c " + quoteWord(`awk '{print}' | ./serve --json '{"a": 1}' {{x}}`)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := started(t, tt.commands...); strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("started as\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// The numbers of CUDA_VISIBLE_DEVICES in the environment are meant as CUDA has them.
func TestStartKeepsTheOrderOfTheEnvironment(t *testing.T) {
	t.Setenv(visibleDevices, "4,5")
	t.Setenv(deviceOrder, "")

	got := started(t, Command{Script: "vllm serve m", GPUs: "4"})
	if want := "http://localhost:8000 CUDA_VISIBLE_DEVICES=4 vllm serve m"; got[0] != want {
		t.Errorf("started as %s, want %s", got[0], want)
	}
}

// On AMD's cards, vLLM refuses to start if the two variables differ.
func TestStartSetsBothVariablesOfAMD(t *testing.T) {
	t.Setenv(visibleDevices, "")
	t.Setenv(visibleHIP, "4,5")
	t.Setenv(deviceOrder, busOrder)

	got := started(t, Command{Script: "vllm serve m", GPUs: "4"})
	if want := "http://localhost:8000 HIP_VISIBLE_DEVICES=4 CUDA_VISIBLE_DEVICES=4 vllm serve m"; got[0] != want {
		t.Errorf("started as %s, want %s", got[0], want)
	}
}

// A server without cards of its own has those of the environment, except in a container.
func TestCardsOfAServer(t *testing.T) {
	t.Setenv(visibleDevices, "4,5")

	for _, tt := range []struct {
		command Command
		cards   string
	}{
		{Command{Script: "vllm serve m"}, "4,5"},
		{Command{Script: "vllm serve m", GPUs: "5"}, "5"},
		{Command{Script: "CUDA_VISIBLE_DEVICES=4 vllm serve m"}, "4"},
		{Command{Script: "docker run -p 8000:8000 vllm/vllm-openai -m b"}, ""},
	} {
		plans, err := planStarts([]Command{tt.command})
		if err != nil {
			t.Fatal(err)
		}

		if cards, _ := plans[0].gpusOf(); cards != tt.cards {
			t.Errorf("%s has the cards %q, want %q", tt.command.Script, cards, tt.cards)
		}
	}
}

func TestCommandsThatCannotBeStarted(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		commands  []Command
		err, hint string
	}{
		"none": {[]Command{{Script: " "}}, "there is no command", "for example"},
		"the same port": {
			[]Command{{Script: "vllm serve a --port 8000"}, {Script: "vllm serve b --port 8000"}},
			"starts 2 servers, and more than one would listen at http://localhost:8000", "write {port}",
		},
		"unknown programs": {
			[]Command{{Script: "./a"}, {Script: "./b"}},
			"a port cannot be added to this command", "write {port}",
		},
		"a container without a port": {
			[]Command{{Script: "vllm serve a"}, {Script: "docker run vllm/vllm-openai -m b"}},
			"does not say at which port of this host", "-p {port}:8000",
		},
		"no cards": {[]Command{{Script: "./serve {gpu}"}}, "there is no --gpus", "--gpus all"},
		"cards twice": {
			[]Command{{Script: "CUDA_VISIBLE_DEVICES=0 vllm serve m", GPUs: "1"}},
			"sets CUDA_VISIBLE_DEVICES, and so does the command", "CUDA_VISIBLE_DEVICES={gpu}",
		},
		"cards of AMD twice": {
			[]Command{{Script: "env HIP_VISIBLE_DEVICES=0 vllm serve m", GPUs: "1"}},
			"sets HIP_VISIBLE_DEVICES, and so does the command", "HIP_VISIBLE_DEVICES={gpu}",
		},
		"cards that do not reach a container": {
			[]Command{{Script: "docker run vllm/vllm-openai -m b", GPUs: "1"}},
			"does not reach the server", "device={gpu}",
		},
		"a shell that cannot read it": {[]Command{{Script: "serve '{port}"}}, "the shell cannot read it", ""},
	} {
		_, err := planStarts(tt.commands)
		if exit.Code(err) != exit.CodeUsage || !strings.Contains(err.Error(), tt.err) ||
			!strings.Contains(exit.Hint(err), tt.hint) {
			t.Errorf("%s: %v (%s), want %s (%s)", name, err, exit.Hint(err), tt.err, tt.hint)
		}
	}
}
