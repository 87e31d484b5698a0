package worker

import (
	"flag"
	"testing"

	"github.com/promptmill/promptmill/proto/prototest"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "8") // they wait for most of their time; the command line still decides
	prototest.Main(m)
}
