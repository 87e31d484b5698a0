package modelservers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/gpu"
)

// hostOf is a host with some cards.
func hostOf(cards int, visible string) GPUHost {
	return GPUHost{Visible: visible, Query: func(context.Context) (list []gpu.Reading, driver string, err error) {
		for i := range cards {
			list = append(list, gpu.Reading{Index: i, UUID: fmt.Sprintf("GPU-%d-abc", i)})
		}
		return list, "550", nil
	}}
}

// noCards is a host without nvidia-smi.
func noCards(visible string) GPUHost {
	return GPUHost{Visible: visible, Query: func(context.Context) ([]gpu.Reading, string, error) {
		return nil, "", fmt.Errorf("%w: no nvidia-smi", gpu.ErrNone)
	}}
}

func TestAssignGPUs(t *testing.T) {
	t.Parallel()

	const serve = "vllm serve m"
	for _, tt := range []struct {
		list     string
		host     GPUHost
		commands string // with semicolons between them
		want     string // likewise, the cards of each server
	}{
		{"all", hostOf(3, ""), serve, "0;1;2"},
		{"all", hostOf(8, "4,5"), serve, "4;5"},
		{"all", noCards(" 4, 5,-1,6"), serve, "4;5"},
		{"all", noCards("MIG-ab-1,MIG-ab-2"), serve, "MIG-ab-1;MIG-ab-2"},
		{"2,0", hostOf(3, ""), serve, "2;0"},
		{"1", hostOf(8, "1,2"), serve, "1"},
		{"0-2,5", hostOf(8, ""), serve, "0;1;2;5"},
		{"07", hostOf(8, ""), serve, "7"},
		{"GPU-1-abc,GPU-0", hostOf(2, ""), serve, "GPU-1-abc;GPU-0"},
		{"MIG-x", hostOf(2, ""), serve, "MIG-x"},
		{"0,9", noCards(""), serve, "0;9"},
		{"0+1,2+3", hostOf(8, ""), serve, "0,1;2,3"},
		{"0+1,2", hostOf(8, ""), serve, "0,1;2"},
		{"0-3", hostOf(8, ""), serve + " -tp 2", "0,1;2,3"},
		{"all", hostOf(8, ""), serve + " --tensor_parallel_size=2 -dp 2", "0,1,2,3;4,5,6,7"},
		{"all", hostOf(4, ""), "sh -c 'vllm serve m -tp 2'", "0,1;2,3"},
		{"all", hostOf(4, ""), "sglang serve m --tp 2 --dp 2", "0,1,2,3"},
		{"all", hostOf(4, ""), "sglang serve m --tp 2 --dp 2 --enable-dp-attention", "0,1;2,3"},
		{"all", hostOf(2, ""), "llama-server -m x -dp 2", "0;1"},
		{"0,1", hostOf(2, ""), "vllm serve a;vllm serve b", "0;1"},
		{"0-2", hostOf(4, ""), "vllm serve a -tp 2;vllm serve b", "0,1;2"},
		{"2,0+1", hostOf(4, ""), "vllm serve a;./b", "2;0,1"},
	} {
		var commands []Command
		for script := range strings.SplitSeq(tt.commands, ";") {
			commands = append(commands, Command{Script: script})
		}

		assigned, err := AssignGPUs(t.Context(), commands, tt.list, tt.host)
		var got []string
		for i, c := range assigned {
			got = append(got, c.GPUs)
			if c.Script != commands[min(i, len(commands)-1)].Script {
				t.Errorf("--gpus %s of %s: server %d is started by %s", tt.list, tt.commands, i, c.Script)
			}
		}

		if strings.Join(got, ";") != tt.want || err != nil {
			t.Errorf("--gpus %s of %s: %s, %v; want %s", tt.list, tt.commands, strings.Join(got, ";"), err, tt.want)
		}
	}
}

// A card is named by its number, or by the beginning of its id that no other card has.
func TestWholeIDOfACard(t *testing.T) {
	t.Parallel()

	host := GPUHost{Query: func(context.Context) ([]gpu.Reading, string, error) {
		return []gpu.Reading{{Index: 0, UUID: "GPU-12"}, {Index: 1, UUID: "GPU-1"}}, "550", nil
	}}
	if groups, err := host.parseList(t.Context(), "GPU-1,0"); err != nil || len(groups) != 2 {
		t.Errorf("got %q, %v", groups, err)
	}
}

// An nvidia-smi that hangs in its driver ends for nothing, and is not waited for without end.
func TestCardsThatDoNotAnswer(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		host := GPUHost{Query: func(context.Context) ([]gpu.Reading, string, error) {
			<-end
			return nil, "", nil
		}}

		_, err := host.parseList(t.Context(), AllGPUs)
		if exit.Code(err) != exit.CodeUsage || !errors.Is(err, errNoAnswer) {
			t.Errorf("all cards: %v", err)
		}

		if groups, err := host.parseList(t.Context(), "0,1"); err != nil || len(groups) != 2 {
			t.Errorf("two cards: %q, %v", groups, err)
		}
		close(end)
	})
}

func TestNewGPUHost(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		cuda, hip, rocr string
		all             string
		refused         string // of card 4
	}{
		{"4,5", "6", "7", "4,5", ""},
		{"", "2,3", "", "2,3", "card 4 is not among those of HIP_VISIBLE_DEVICES, 2,3"},
		{"", "", "4,GPU-7a", "0,1", "card 4 is not among those of ROCR_VISIBLE_DEVICES, 0,1"},
		{"", "", "", "0,1,2,3,4", ""},
	} {
		host := NewGPUHost(func(name string) string {
			return map[string]string{visibleDevices: tt.cuda, visibleHIP: tt.hip, visibleROCr: tt.rocr}[name]
		})
		host.Query = hostOf(5, "").Query
		if all, err := host.parseList(t.Context(), AllGPUs); strings.Join(all, ",") != tt.all || err != nil {
			t.Errorf("%+v: all cards are %q, %v", tt, all, err)
		}

		_, err := host.parseList(t.Context(), "4")
		if (err == nil) != (tt.refused == "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestAssignGPUsRefuses(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		list     string
		host     GPUHost
		commands int
		script   string
		err      string
	}{
		{"all", noCards(""), 1, "a", "the graphics cards of this host are not known: no graphics cards"},
		{"all", hostOf(0, ""), 1, "a", "there are none"},
		{"all", hostOf(2, "-1"), 1, "a", `CUDA_VISIBLE_DEVICES is "-1", which hides all cards`},
		{"", hostOf(2, ""), 1, "a", `"" is neither the number of a card nor an id`},
		{"0,", hostOf(2, ""), 1, "a", `"" is neither`},
		{"a", hostOf(2, ""), 1, "a", `"a" is neither`},
		{"-1", hostOf(2, ""), 1, "a", `"-1" is neither`},
		{"0 1", hostOf(2, ""), 1, "a", `"0 1" is neither`},
		{"3-1", hostOf(4, ""), 1, "a", `"3-1" is no range of cards`},
		{"0-9999", hostOf(4, ""), 1, "a", `is no range of cards`},
		{"0,0", hostOf(2, ""), 1, "a", "card 0 is named twice"},
		{"0+1,01", hostOf(2, ""), 1, "a", "card 1 is named twice"},
		{"0,GPU-0", hostOf(2, ""), 1, "a", "0 and GPU-0 are the same card"},
		{"GPU-1-abc,GPU-1", hostOf(2, ""), 1, "a", "GPU-1-abc and GPU-1 are the same card"},
		{"GPU-", hostOf(2, ""), 1, "a", `"GPU-" is neither`},
		{"GPU-1", hostOf(12, ""), 1, "a", "the ids of 3 cards begin with GPU-1"},
		{"all", hostOf(8, "2,3,2"), 1, "a", `CUDA_VISIBLE_DEVICES is "2,3,2", which names card 2 twice`},
		{"0", hostOf(2, "-1"), 1, "a", "card 0 is not among those of CUDA_VISIBLE_DEVICES, -1"},
		{"0,2", hostOf(2, ""), 1, "a", "this host has no card 2; it has 0, 1"},
		{"GPU-7", hostOf(2, ""), 1, "a", "this host has no card GPU-7"},
		{"0,1", hostOf(8, "4,5"), 1, "a", "is not among those of CUDA_VISIBLE_DEVICES, 4,5"},
		{"0-2", hostOf(4, ""), 1, "vllm serve m -tp 2", "--gpus leaves 1 for the last server, which needs 2 cards"},
		{"0-2", hostOf(4, ""), 1, "vllm serve m -tp two", "is no number of cards"},
		{"0-2", hostOf(4, ""), 2, "a", "has cards for 3 servers, and there are 2 --exec"},
		{"0", hostOf(4, ""), 2, "a", "has cards for 1 servers, and there are 2 --exec"},
	} {
		commands := make([]Command, tt.commands)
		for i := range commands {
			commands[i].Script = tt.script
		}

		_, err := AssignGPUs(t.Context(), commands, tt.list, tt.host)
		if exit.Code(err) != exit.CodeUsage || !strings.Contains(err.Error(), tt.err) || exit.Hint(err) == "" {
			t.Errorf("--gpus %q: %v (%s), want %s", tt.list, err, exit.Hint(err), tt.err)
		}
	}
}

// FuzzGPUList: each card of a list is in one group, and a list is read or refused.
func FuzzGPUList(f *testing.F) {
	for _, seed := range []string{"all", "0,1", "0-3", "0+1,2+3", "GPU-1,MIG-2", "07,7", "1-0", ",", "+"} {
		f.Add(seed)
	}

	f.Fuzz(func(t *testing.T, list string) {
		groups, err := GPUHost{Query: noCards("").Query}.parseList(t.Context(), list)
		if err != nil {
			if _, ok := errors.AsType[*exit.Error](err); !ok {
				t.Errorf("%q: %v has no exit code", list, err)
			}
			return
		}

		seen := map[string]bool{}
		for card := range strings.SplitSeq(strings.Join(groups, ","), ",") {
			if !cardName.MatchString(card) || seen[card] {
				t.Errorf("%q: card %q of %q", list, card, groups)
			}
			seen[card] = true
		}
	})
}
