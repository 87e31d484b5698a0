package modelservers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/gpu"
)

// AllGPUs is the list of all graphics cards that this process may use.
const AllGPUs = "all"

// GPUHost describes the graphics cards of this host, as far as they are known.
type GPUHost struct {
	// Visible has the cards that this process may use, as CUDA_VISIBLE_DEVICES has them; empty: all.
	Visible string
	// VisibleBy is the variable that says so. Defaults to CUDA_VISIBLE_DEVICES.
	VisibleBy string
	// Query reads the cards. Defaults to [gpu.Query].
	Query func(context.Context) (cards []gpu.Reading, driver string, err error)
}

// NewGPUHost returns what the environment says of the cards of this host: CUDA_VISIBLE_DEVICES, or of AMD's cards
// HIP_VISIBLE_DEVICES, which means the same there, or ROCR_VISIBLE_DEVICES, whose cards have the numbers from 0 on for
// the others.
func NewGPUHost(getenv func(string) string) GPUHost {
	for _, name := range []string{visibleDevices, visibleHIP} {
		if cards := getenv(name); cards != "" {
			return GPUHost{Visible: cards, VisibleBy: name}
		}
	}

	cards := getenv(visibleROCr)
	if cards == "" {
		return GPUHost{}
	}

	var numbers []string
	for i := range strings.Count(cards, ",") + 1 {
		numbers = append(numbers, strconv.Itoa(i))
	}

	return GPUHost{Visible: strings.Join(numbers, ","), VisibleBy: visibleROCr}
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
				"--gpus leaves %d for the last server, which needs %d cards: %s", len(cards), needs, script)
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

	var named []string
	for part := range strings.SplitSeq(list, ",") {
		cards, err := expandPart(strings.TrimSpace(part))
		if err != nil {
			return nil, exit.Usage("for example --gpus all, --gpus 0,1 or --gpus 0-3", "--gpus %s: %w", list, err)
		}

		for _, group := range cards {
			named = append(named, strings.Split(group, ",")...)
		}

		groups = append(groups, cards...)
	}

	if twice := findTwice(named); twice != "" {
		return nil, exit.Usage("name each once", "--gpus %s: card %s is named twice", list, twice)
	}

	return groups, h.check(ctx, list, named)
}

// findTwice returns the first card that is there twice; empty: none.
func findTwice(cards []string) string {
	for i, card := range cards {
		if slices.Contains(cards[:i], card) {
			return card
		}
	}
	return ""
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

// visible returns the cards that Visible names. CUDA ignores what follows a number below zero.
func (h GPUHost) visible() (cards []string) {
	for card := range strings.SplitSeq(h.Visible, ",") {
		if card = strings.TrimSpace(card); !cardName.MatchString(card) {
			break
		}
		cards = append(cards, card)
	}
	return cards
}

// visibleBy returns the variable that hides cards.
func (h GPUHost) visibleBy() string { return cmp.Or(h.VisibleBy, visibleDevices) }

// all returns the cards that this process may use.
func (h GPUHost) all(ctx context.Context) (cards []string, err error) {
	if h.Visible != "" {
		cards = h.visible()
		twice := findTwice(cards)
		switch {
		case len(cards) == 0:
			return nil, exit.Usage("unset it, or let it name the cards",
				"--gpus all: %s is %q, which hides all cards", h.visibleBy(), h.Visible)
		case twice != "":
			return nil, exit.Usage("let it name each once",
				"--gpus all: %s is %q, which names card %s twice", h.visibleBy(), h.Visible, twice)
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

// check returns an error if one of the named cards is hidden or not there, or if two names are of one card. Where
// nvidia-smi does not say, none is refused.
func (h GPUHost) check(ctx context.Context, list string, named []string) error {
	if h.Visible != "" {
		for _, card := range named {
			if !slices.Contains(h.visible(), card) {
				return exit.Usage("name one of those, or unset it", "--gpus %s: card %s is not among those of %s, %s",
					list, card, h.visibleBy(), h.Visible)
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

	names := map[int]string{}
	for _, card := range named {
		if strings.HasPrefix(card, "MIG-") {
			continue // parts of cards are not listed
		}

		found := findCards(readings, card)
		switch {
		case len(found) == 0:
			return exit.Usage("nvidia-smi -L lists them", "--gpus %s: this host has no card %s; it has %s",
				list, card, strings.Join(known, ", "))
		case len(found) > 1:
			return exit.Usage("nvidia-smi -L lists them", "--gpus %s: the ids of %d cards begin with %s",
				list, len(found), card)
		case names[found[0]] != "":
			return exit.Usage("name each once", "--gpus %s: %s and %s are the same card", list, names[found[0]], card)
		}

		names[found[0]] = card
	}

	return nil
}

// findCards returns the numbers of the cards that have a number, or an id that begins with a text: CUDA takes the
// beginning for the id if no other card has it.
func findCards(readings []gpu.Reading, name string) (found []int) {
	for _, r := range readings {
		switch {
		case strconv.Itoa(r.Index) == name || r.UUID == name:
			return []int{r.Index}
		case strings.HasPrefix(name, "GPU-") && strings.HasPrefix(r.UUID, name):
			found = append(found, r.Index)
		}
	}

	return found
}

// queryWait is the time that nvidia-smi has to list the cards. Without the persistence mode, it loads the driver of
// each card first, which takes some seconds for eight.
const queryWait = time.Minute

// errNoAnswer is the error of an nvidia-smi that hangs, as it does when a card fails.
var errNoAnswer = errors.New("nvidia-smi does not answer")

// query reads the cards. One that hangs in the driver is left behind, since no signal ends it.
func (h GPUHost) query(ctx context.Context) (readings []gpu.Reading, driver string, err error) {
	query := h.Query
	if query == nil {
		query = gpu.Query
	}

	ctx, cancel := context.WithTimeoutCause(ctx, queryWait, errNoAnswer)
	defer cancel()

	answers := make(chan cardList, 1)
	go func() {
		readings, driver, err := query(ctx)
		answers <- cardList{readings, driver, err}
	}()

	select {
	case a := <-answers:
		if a.err == nil && len(a.readings) == 0 {
			a.err = errors.New("there are none")
		}
		return a.readings, a.driver, a.err
	case <-ctx.Done():
		return nil, "", context.Cause(ctx)
	}
}

// cardList is the answer of nvidia-smi.
type cardList struct {
	readings []gpu.Reading
	driver   string
	err      error
}
