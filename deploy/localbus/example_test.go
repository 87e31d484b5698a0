package localbus_test

import (
	"fmt"
	"os"

	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/proto"
)

// The join string of a role names the bus, its certificate and the role's password.
func ExampleIdentity_Join() {
	state, err := os.MkdirTemp("", "localbus")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(state)

	identity, err := localbus.LoadIdentity(state)
	if err != nil {
		fmt.Println(err)
		return
	}

	join := identity.Join(proto.RoleWorker, []string{"10.0.0.1:4333"})

	parsed, err := proto.ParseJoin(join.String())
	if err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println(parsed.Role, parsed.Addresses, parsed.Password() == join.Password())

	// Output:
	// worker [10.0.0.1:4333] true
}
