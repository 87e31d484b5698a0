package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/cmdline"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/recordfile"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/deploy/terminal"
)

func keyCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "key",
		Usage: "make, list and revoke the keys of the batch API",
		Commands: []*cli.Command{
			keyCreateCommand(env),
			keyListCommand(env),
			keyRevokeCommand(env),
		},
	}
}

// keyFlags returns the flags of all commands for keys.
func keyFlags() []cli.Flag { return []cli.Flag{apiKeyFileFlag(), stateFlag()} }

// apiKeyFileFlag is the flag of commands that use the keys of the batch API.
func apiKeyFileFlag() cli.Flag {
	return &cli.StringFlag{
		Name:        "api-key-file",
		Category:    groupAPI,
		Usage:       "`FILE`: keys of the batch API's clients, as promptmill key writes it",
		DefaultText: apikey.FileName + " in the state folder",
	}
}

// openKeys opens the file of keys that the flags name.
func openKeys(env environment, c *cli.Command) (*apikey.File, error) {
	if path := c.String("api-key-file"); path != "" {
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		return apikey.Open(path), nil
	}

	state, err := stateOf(env, c)
	if err != nil {
		return nil, err
	}

	return apikey.Open(filepath.Join(state, apikey.FileName)), nil
}

// writeKeyCommand returns the command line of a subcommand of key for the keys of a command.
func writeKeyCommand(c *cli.Command, name string) string {
	line := "promptmill key " + name
	for _, flag := range []string{"api-key-file", "state"} {
		if cmdline.IsTyped(c, flag) { // a variable holds for the command too
			return line + " --" + flag + " " + report.ShellWords(c.String(flag)) // the file, or the folder with it
		}
	}

	return line
}

// explainKeyFile gives an error of a file of keys its hint.
func explainKeyFile(err error) error {
	switch {
	case errors.Is(err, apikey.ErrContent):
		return exit.WithHint(err, "repair the file, or move it away and make new keys")
	case errors.Is(err, recordfile.ErrFull):
		return exit.WithHint(err, "revoke keys that nobody uses any more")
	}

	return exit.WithHint(err, "name another file with --api-key-file")
}

func keyCreateCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "create",
		Usage: "make a key for the batch API, and print its secret once",
		Description: "The secret goes to standard output. Only its hash is kept, so it cannot be printed again. A " +
			"promptmill serve that runs accepts the key at once. With the first key, serve refuses all requests " +
			"without one.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{
				Name:     "name",
				Category: groupAPI,
				Usage:    "`NAME`: name of the key for people; no other key has it",
				Local:    true, // PROMPTMILL_NAME is for worker
			},
			&cli.BoolFlag{
				Name:     "own-only",
				Category: groupAPI,
				Usage:    "the key sees only the files, batches and runs that it made",
			},
			&cli.BoolFlag{
				Name:     "read-only",
				Category: groupAPI,
				Usage:    "the key sees, and changes nothing: no batches, and no buttons on the page",
			},
			jsonFlag(),
		}, keyFlags()...),
		Action: func(_ context.Context, c *cli.Command) error {
			file, err := openKeys(env, c)
			if err != nil {
				return err
			}

			if cmdline.IsTyped(c, "name") && c.String("name") == "" {
				return exit.Usage("give a name, or leave out --name", "--name: the name is empty")
			}

			rights := apikey.Rights{OwnOnly: c.Bool("own-only"), ReadOnly: c.Bool("read-only")}
			if rights.OwnOnly && rights.ReadOnly {
				return exit.Usage("leave out one of them",
					"--own-only and --read-only make a key that sees nothing: it sees only what it makes, and makes nothing")
			}

			if c.String("api-key-file") == "" { // or else the folder is not of promptmill alone
				state := filepath.Dir(file.Path())
				if err := statedir.Make(state, state); err != nil {
					return err
				}
			}

			return createKey(env, file, c.String("name"), rights, c.Bool("json"))
		},
	}
}

// shownKey is a key as JSON for programs.
type shownKey struct {
	ID        string    `json:"id"`
	Name      string    `json:"name,omitempty"`
	Sees      string    `json:"sees"`
	ReadOnly  bool      `json:"read_only"`
	CreatedAt time.Time `json:"created_at"`
	// Secret is the secret of a new key.
	Secret string `json:"secret,omitempty"`
}

// showKey returns a key as programs see it. secret is that of a new key.
func showKey(k apikey.Key, secret string) shownKey {
	return shownKey{
		ID:        k.ID,
		Name:      k.Name,
		Sees:      describeSight(k),
		ReadOnly:  k.ReadOnly,
		CreatedAt: k.CreatedAt,
		Secret:    secret,
	}
}

// describeSight returns all or own: the files and batches that a key sees.
func describeSight(k apikey.Key) string {
	if k.OwnOnly {
		return "own"
	}
	return "all"
}

// describeChanges returns yes or no: whether a key may change what it sees.
func describeChanges(k apikey.Key) string {
	if k.ReadOnly {
		return "no"
	}
	return "yes"
}

// createKey makes a key and prints its secret.
func createKey(env environment, file *apikey.File, name string, rights apikey.Rights, asJSON bool) error {
	secret, key, err := file.Create(name, rights)
	switch {
	case errors.Is(err, apikey.ErrName):
		return exit.Usage("choose another name", "--name %s: %w", report.ShellWords(name), err)
	case err != nil:
		return explainKeyFile(err)
	case asJSON:
		return printJSON(env.stdout, showKey(key, secret))
	}

	fmt.Fprintln(env.stdout, secret)
	sees := "all files, batches and runs"
	switch {
	case rights.OwnOnly:
		sees = "only the files, batches and runs that it makes"
	case rights.ReadOnly:
		sees += " and changes none"
	}
	env.printf("this is key %s, which sees %s; its secret is not shown again", key.ID, sees)
	env.printf("to use it: OpenAI(base_url=\"http://HOST:PORT/v1\", api_key=\"pm-...\"), or set OPENAI_API_KEY")

	return nil
}

func keyListCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:        "list",
		Usage:       "list the keys of the batch API",
		Description: "The disk space of each key is in the metrics of promptmill serve --api.",
		Flags:       append([]cli.Flag{jsonFlag()}, keyFlags()...),
		Action: func(_ context.Context, c *cli.Command) error {
			file, err := openKeys(env, c)
			if err != nil {
				return err
			}

			keys, err := file.Keys()
			if err != nil {
				return explainKeyFile(err)
			}

			return listKeys(env, c, file, keys)
		},
	}
}

// listKeys prints keys.
func listKeys(env environment, c *cli.Command, file *apikey.File, keys []apikey.Key) error {
	if c.Bool("json") {
		shown := []shownKey{} // never null
		for _, k := range keys {
			shown = append(shown, showKey(k, ""))
		}
		return printJSON(env.stdout, shown)
	}

	if len(keys) == 0 {
		env.printf("there are no keys in %s; %s makes one", file.Path(), writeKeyCommand(c, "create"))
		return nil
	}

	cells := terminal.CellsOf(keys)

	width, _ := terminalSize(env.stdout)

	return terminal.Columns{
		{Head: "KEY", Cells: cells(func(k apikey.Key) string { return k.ID })},
		{
			Head:  "NAME",
			Cells: cells(func(k apikey.Key) string { return cmp.Or(k.Name, "-") }),
			CutAt: 1,
			Least: 12,
		},
		{Head: "SEES", Cells: cells(describeSight)},
		{Head: "CHANGES", Cells: cells(describeChanges)},
		{Head: "CREATED", Cells: cells(func(k apikey.Key) string { return formatMinute(k.CreatedAt, "-") })},
	}.Print(env.stdout, width)
}

func keyRevokeCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "revoke",
		Usage:     "revoke a key of the batch API, by its id or name",
		ArgsUsage: "KEY",
		Description: "A promptmill serve that runs refuses the key at once. The files and batches that it made stay, " +
			"and keys that see all files and batches see them.",
		Flags: append([]cli.Flag{jsonFlag()}, keyFlags()...),
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().First() == "" {
				return exit.Usage(writeKeyCommand(c, "list")+" shows the keys", "want the id or the name of one key")
			}

			file, err := openKeys(env, c)
			if err != nil {
				return err
			}

			return revokeKey(env, c, file)
		},
	}
}

// revokeKey revokes a key and prints that.
func revokeKey(env environment, c *cli.Command, file *apikey.File) error {
	idOrName := c.Args().First()
	keys, err := file.Keys()
	if err != nil {
		return explainKeyFile(err)
	}

	revoked, err := apikey.Key{}, apikey.ErrUnknown
	if len(keys) > 0 { // a file that is not there stays away
		revoked, err = file.Revoke(idOrName)
	}

	switch {
	case errors.Is(err, apikey.ErrUnknown):
		return unknownKeyError(c, file, keys)
	case err != nil:
		return explainKeyFile(err)
	case c.Bool("json"):
		return printJSON(env.stdout, showKey(revoked, ""))
	}

	fmt.Fprintln(env.stdout, "revoked "+nameKey(revoked))
	if len(keys) == 1 {
		env.printf("that was the last key: a promptmill serve that runs refuses all requests until there is another one, " +
			"and serve --api does not start")
	}

	return nil
}

// nameKey returns the id of a key and its name.
func nameKey(k apikey.Key) string {
	if k.Name == "" {
		return k.ID
	}
	return k.ID + " (" + k.Name + ")"
}

// unknownKeyError returns the error for an id or a name that no key has.
func unknownKeyError(c *cli.Command, file *apikey.File, keys []apikey.Key) error {
	idOrName := c.Args().First()
	if len(keys) == 0 {
		return exit.Usage(writeKeyCommand(c, "create")+" makes one", "there is no key %s: %s has none",
			report.ShellWords(idOrName), file.Path())
	}

	var known []string
	for _, k := range keys {
		known = append(known, k.ID, k.Name)
	}

	return exit.Usage(suggestName(idOrName, known)+writeKeyCommand(c, "list")+" shows the keys",
		"there is no key %s in %s", report.ShellWords(idOrName), file.Path())
}

// keysOfFile are the ids and names of the keys, for completion.
func keysOfFile(env environment, c *cli.Command) (list []string) {
	file, err := openKeys(env, c)
	if err != nil {
		return nil
	}

	keys, _ := file.Keys() // a broken file completes nothing
	for _, k := range keys {
		list = append(list, k.ID+"\t"+k.Name)
		if k.Name != "" {
			list = append(list, k.Name+"\t"+k.ID)
		}
	}

	return list
}
