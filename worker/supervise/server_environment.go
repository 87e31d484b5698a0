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
