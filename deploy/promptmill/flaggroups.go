package main

// The groups of the flags in the help, see [cli.FlagBase.Category], in the order of the help.
// Within a group the help has the order of the command's flags: the most used ones come first.
const (
	groupInput   = "Input"
	groupOutput  = "Output"
	groupModel   = "Model server"
	groupPolicy  = "Run policy"
	groupBus     = "Bus"
	groupReport  = "Report"
	groupSim     = "Simulator"
	groupGeneral = "General"
)

// flagGroups are the groups in the order of the help.
var flagGroups = []string{
	groupInput, groupOutput, groupModel, groupPolicy, groupBus, groupReport, groupSim, groupGeneral,
}
