package modelservers

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/gpu"
)

// AllGPUs is the list of all graphics cards that this process may use.
const AllGPUs = "all"

// GPUHost is what is known of the graphics cards of this host.
type GPUHost struct {
	// Visible is the value of CUDA_VISIBLE_DEVICES; empty: all cards are visible.
	Visible string
	// Query reads the cards. Defaults to [gpu.Query].
	Query func(context.Context) (cards []gpu.Reading, driver string, err error)
}

// AssignGPUs returns a command for each server that some commands start on the cards of a list. One command
// starts a server on each card, or on each so many as its --tensor-parallel-size and the like say; several
// get theirs in their order.
//
// The list has numbers as nvidia-smi shows them, ranges such as 0-3, and ids, with commas between them, or is
// [AllGPUs]. The cards of one server may be joined by +: 0+1,2+3.
func AssignGPUs(ctx context.Context, commands []Command, list string, host GPUHost) ([]Command, error) {
	groups, err := host.parseList(ctx, list)
	if err != nil {
		return nil, err
	}

	if !strings.Contains(list, "+") {
		if groups, err = groupCards(commands, groups); err != nil {
			return nil, err
		}
	}

	if len(commands) > 1 && len(commands) != len(groups) {
		return nil, exit.Usage("name as many, or give one --exec to start it on each",
			"--gpus %s has cards for %d servers, and there are %d --exec", list, len(groups), len(commands))
	}

	var assigned []Command
	for i, cards := range groups {
		c := commands[min(i, len(commands)-1)]
		c.GPUs = cards
		assigned = append(assigned, c)
	}

	return assigned, nil
}

// groupCards joins the cards of each server, of as many as its command needs.
func groupCards(commands []Command, cards []string) (groups []string, err error) {
	for i := 0; len(cards) > 0; i++ {
		script := commands[min(i, len(commands)-1)].Script
		needs, err := gpusNeeded(script)
		if err != nil {
			return nil, err
		}

		if needs > len(cards) {
			return nil, exit.Usage("name a multiple of it, or join the cards of each server by +, such as 0+1,2+3",
				"--gpus leaves %d cards for the last server, which needs %d: %s", len(cards), needs, script)
		}

		groups = append(groups, strings.Join(cards[:needs], ","))
		cards = cards[needs:]
		if len(commands) > 1 && i == len(commands)-1 {
			return append(groups, cards...), nil // too many, which the caller refuses
		}
	}

	return groups, nil
}

// mostGPUs is more than a host has.
const mostGPUs = 1024

// gpusNeeded returns the number of cards that the server of a command needs: the product of the flags that
// spread a model, and copies of it, over cards. It is 1 for a program that is not known.
func gpusNeeded(script string) (int, error) {
	launch, err := FindLaunch(script)
	if err != nil || launch.Program == LlamaServer { // which takes as many as it sees
		return 1, nil //nolint:nilerr // it is started as it is
	}

	parallel := [][]string{
		{"--tensor-parallel-size", "-tp", "--tp-size", "--tp"},
		{"--pipeline-parallel-size", "-pp", "--pp-size", "--pp"},
		{"--data-parallel-size", "-dp", "--dp-size", "--dp"},
	}
	if launch.Program == SGLang && launch.Sets("--enable-dp-attention") {
		parallel = parallel[:2] // the copies share the cards of the tensor parallelism
	}

	needs := 1
	for _, names := range parallel {
		value := launch.value(names...)
		if value == "" {
			continue
		}

		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || needs*n > mostGPUs {
			return 0, exit.Usage("join the cards of each server by +, such as --gpus 0+1,2+3",
				"%s %s of the command is no number of cards: %s", names[0], value, script)
		}
		needs *= n
	}

	return needs, nil
}

// parseList returns the cards of a list, those that are joined as one text with commas.
func (h GPUHost) parseList(ctx context.Context, list string) (groups []string, err error) {
	if list == AllGPUs {
		return h.all(ctx)
	}

	named := map[string]bool{}
	for part := range strings.SplitSeq(list, ",") {
		cards, err := expandPart(strings.TrimSpace(part))
		if err != nil {
			return nil, exit.Usage("for example --gpus all, --gpus 0,1 or --gpus 0-3", "--gpus %s: %w", list, err)
		}

		for _, group := range cards {
			for card := range strings.SplitSeq(group, ",") {
				if named[card] {
					return nil, exit.Usage("name each once", "--gpus %s: card %s is named twice", list, card)
				}
				named[card] = true
			}
		}

		groups = append(groups, cards...)
	}

	return groups, h.check(ctx, list, named)
}

// cardName is the number or the id of a card, or of a part of one.
var cardName = regexp.MustCompile(`^([0-9]{1,4}|(GPU|MIG)-[A-Za-z0-9/-]{1,80})$`)

var cardRange = regexp.MustCompile(`^([0-9]{1,4})-([0-9]{1,4})$`)

// expandPart returns the cards of a part of a list: several if it is a range, and one text with commas if
// they are joined.
func expandPart(part string) (cards []string, err error) {
	if ends := cardRange.FindStringSubmatch(part); ends != nil {
		first, _ := strconv.Atoi(ends[1])
		last, _ := strconv.Atoi(ends[2])
		if first > last || last-first >= mostGPUs {
			return nil, fmt.Errorf("%q is no range of cards", part)
		}
		for n := first; n <= last; n++ {
			cards = append(cards, strconv.Itoa(n))
		}

		return cards, nil
	}

	joined := strings.Split(part, "+")
	for i, card := range joined {
		if !cardName.MatchString(card) {
			return nil, fmt.Errorf("%q is neither the number of a card nor an id that begins with GPU- or MIG-", card)
		}
		if n, err := strconv.Atoi(card); err == nil {
			joined[i] = strconv.Itoa(n)
		}
	}

	return []string{strings.Join(joined, ",")}, nil
}

// visible returns the cards that CUDA_VISIBLE_DEVICES names; nil: it is not set. CUDA ignores what follows a
// number below zero.
func (h GPUHost) visible() (cards []string) {
	for card := range strings.SplitSeq(h.Visible, ",") {
		if card = strings.TrimSpace(card); !cardName.MatchString(card) {
			break
		}
		cards = append(cards, card)
	}
	return cards
}

// all returns the cards that this process may use.
func (h GPUHost) all(ctx context.Context) (cards []string, err error) {
	if h.Visible != "" {
		if cards = h.visible(); len(cards) == 0 {
			return nil, exit.Usage("name the cards, or unset it",
				"--gpus all: CUDA_VISIBLE_DEVICES is %q, which hides all cards", h.Visible)
		}
		return cards, nil
	}

	readings, _, err := h.query(ctx)
	if err != nil {
		return nil, exit.Usage("install the driver of NVIDIA, which has nvidia-smi, or name the cards: --gpus 0,1",
			"--gpus all: the graphics cards of this host are not known: %w", err)
	}

	for _, r := range readings {
		cards = append(cards, strconv.Itoa(r.Index))
	}

	return cards, nil
}

// check returns an error if one of the named cards is hidden or not there. Where nvidia-smi does not say,
// none is refused.
func (h GPUHost) check(ctx context.Context, list string, named map[string]bool) error {
	if h.Visible != "" {
		for card := range named {
			if !slices.Contains(h.visible(), card) {
				return exit.Usage("--gpus all takes those", "--gpus %s: card %s is not among those of CUDA_VISIBLE_DEVICES, %s",
					list, card, h.Visible)
			}
		}
		return nil
	}

	readings, _, err := h.query(ctx)
	if err != nil {
		return nil //nolint:nilerr // it may have cards all the same: of AMD, for example
	}

	var known []string
	for _, r := range readings {
		known = append(known, strconv.Itoa(r.Index))
	}

	for card := range named {
		_, err := strconv.Atoi(card)
		has := slices.Contains(known, card)
		if err != nil { // a part of an id is enough for CUDA, and parts of cards are not listed
			has = strings.HasPrefix(card, "MIG-") ||
				slices.ContainsFunc(readings, func(r gpu.Reading) bool { return strings.HasPrefix(r.UUID, card) })
		}
		if !has {
			return exit.Usage("nvidia-smi -L lists them", "--gpus %s: this host has no card %s; it has %s",
				list, card, strings.Join(known, ", "))
		}
	}

	return nil
}

// query reads the cards.
func (h GPUHost) query(ctx context.Context) (readings []gpu.Reading, driver string, err error) {
	if h.Query == nil {
		return gpu.Query(ctx)
	}
	if readings, driver, err = h.Query(ctx); err == nil && len(readings) == 0 {
		err = errors.New("there are none")
	}
	return readings, driver, err
}
