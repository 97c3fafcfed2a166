package main

import (
	"os/exec"
	"syscall"
	"time"

	"github.com/mxpipe/mxpipe/bench/measure"
)

// child is a server that is measured: it runs until it is stopped.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has
}

// startChild starts it. It gets the signal last when this process dies.
func startChild(cmd *exec.Cmd, last syscall.Signal) (*child, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: last}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd, make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// pid is the process's.
func (c *child) pid() int { return c.cmd.Process.Pid }

// cpu is what it and its own children have used so far.
func (c *child) cpu() (time.Duration, error) { return measure.TreeCPU(c.pid()) }

// stop ends it.
func (c *child) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(patience):
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
}
