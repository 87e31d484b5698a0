package supervise

import (
	"os"
	"slices"
	"strings"
)

// secretVariables let promptmill into its bus and its model servers. So do those whose names
// begin with NATS_.
var secretVariables = []string{
	"PROMPTMILL_API_KEY", "PROMPTMILL_JOIN", "PROMPTMILL_URL", "PROMPTMILL_NATS", "PROMPTMILL_NATS_USER",
	"PROMPTMILL_NATS_CREDS",
}

// serverEnvironment returns the environment of the server's processes: that of this process
// without the secrets, unless the command names one, as in "vllm serve --api-key
// $PROMPTMILL_API_KEY".
func serverEnvironment(command string) []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		secret := slices.Contains(secretVariables, name) || strings.HasPrefix(name, "NATS_")
		return secret && !strings.Contains(command, name)
	})
}

// markVariable has the marks of the starts that a process comes from, the outermost first.
const markVariable = "PROMPTMILL_STARTED_BY"

// markEnvironment adds the mark of a start to an environment.
func markEnvironment(environment []string, mark string) []string {
	const prefix = markVariable + "="
	for i, variable := range environment {
		if strings.HasPrefix(variable, prefix) {
			environment[i] = variable + "," + mark
			return environment
		}
	}
	return append(environment, prefix+mark)
}
