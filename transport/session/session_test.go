package session

import (
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }
