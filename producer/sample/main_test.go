package sample

import (
	"testing"

	"github.com/promptmill/promptmill/proto/prototest"
)

func TestMain(m *testing.M) { prototest.Main(m) }
