package doctor_test

import (
	"fmt"
	"os"

	"github.com/promptmill/promptmill/deploy/doctor"
)

func ExampleFinding_Print() {
	finding := doctor.Finding{
		Name:   "open files",
		Status: doctor.StatusWarn,
		Detail: "at most 256",
		Fix:    "ulimit -n 8192",
	}
	finding.Print(os.Stdout, false)

	diagnosis := doctor.Diagnosis{OK: true, Checks: []doctor.Finding{finding}}
	fmt.Println(diagnosis.Summary())

	// Output:
	// warn  open files      at most 256
	//                       ulimit -n 8192
	// 0 ok, 1 to look at, 0 failed
}
