package dnssec

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes a child end when a test is killed that would have stopped
// it.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
