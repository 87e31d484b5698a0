package main

import (
	"cmp"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/cmdline"
)

// The groups of the flags in the help, see [cli.FlagBase.Category], in the order of the help.
// Within a group the help has the order of the command's flags: the most used ones come first.
const (
	groupTrial   = "Trial"
	groupInput   = "Input"
	groupRows    = "Rows"
	groupOutput  = "Output"
	groupModel   = "Model server"
	groupPolicy  = "Run policy"
	groupBus     = "Bus"
	groupAPI     = "Batch API"
	groupEvents  = "Ends of runs"
	groupReport  = "Report"
	groupSim     = "Simulator"
	groupGeneral = cmdline.GeneralGroup
)

// flagGroups are the groups in the order of the help.
var flagGroups = []string{
	groupTrial, groupInput, groupRows, groupOutput, groupModel, groupPolicy, groupBus, groupAPI, groupEvents,
	groupReport, groupSim, groupGeneral,
}

// The groups of the commands in the help of promptmill.
const (
	groupRun     = "Run"
	groupBoxes   = "Many boxes"
	groupRuns    = "Runs on a bus"
	groupResults = "Results"
	groupOther   = "Other"
)

// sortFlags sorts the flags of a command by their groups.
func sortFlags(flags []cli.Flag) {
	slices.SortStableFunc(flags, func(a, b cli.Flag) int { return cmp.Compare(groupOf(a), groupOf(b)) })
}

// groupOf returns the place of a flag's group in the help. It is -1 for a flag without a group.
func groupOf(f cli.Flag) int {
	return slices.Index(flagGroups, f.(cli.CategorizableFlag).GetCategory())
}
