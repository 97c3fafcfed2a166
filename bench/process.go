package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/bench/measure"
	"github.com/mxpipe/mxpipe/bench/report"
	"github.com/mxpipe/mxpipe/internal/wire"
)

// baselines are the programs that mxpipe is compared with.
type baselines struct{ empty, drain string }

// build makes them. Without a C compiler there is no drain.
func (b *bench) buildBaselines() (p baselines, err error) {
	p.empty = filepath.Join(b.dir, "empty")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", p.empty, "./bench/baseline/empty")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return p, fmt.Errorf("go build: %w\n%s", err, out)
	}
	p.drain, err = b.buildC("drain")
	return p, err
}

// buildC makes one of the programs in C.
func (b *bench) buildC(name string) (string, error) {
	program := filepath.Join(b.dir, name)
	source := filepath.Join("bench", "baseline", name, name+".c")
	if out, err := exec.Command("cc", "-O2", "-static", "-pthread", "-o", program, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("cc: %w; Debian's packages gcc and libc6-dev have it\n%s", err, out)
	}
	return program, nil
}

// process measures what one call of mxpipe costs, as a process.
func (b *bench) process() error {
	programs, err := b.buildBaselines()
	if err != nil {
		return err
	}
	answerer, err := startAnswerer(filepath.Join(b.dir, "answer.sock"))
	if err != nil {
		return err
	}
	defer answerer.stop()
	s := b.report.Section("One call of mxpipe, as a process",
		"Against an empty Go program and a static C program that reads its input; each is started in turn. mxpipe talks",
		"to a stand-in for mxpolicyd that answers at once, so that it is its own cost. CPU is user and system time.")
	commands := []struct {
		name string
		args []string
	}{
		{"empty Go program", []string{programs.empty}},
		{"C program", []string{programs.drain}},
		{"mxpipe", []string{filepath.Join(b.bin, "mxpipe"), "--socket", answerer.path, "--queue-id", "4XyZ", "--size", "10240",
			"--nexthop", "hosts.bench", "-f", "a@sender.bench", "--", "b@hosts.bench"}},
	}
	for _, size := range []int{1 << 10, 10 << 10, 1 << 20} {
		text := bytes.ReplaceAll(message(size), []byte("\r\n"), []byte("\n"))
		cpu := make([]measure.Sample, len(commands))
		wall := make([]measure.Sample, len(commands))
		for range b.rounds {
			sum, took, err := b.spawn(b.amount(100), text, commands[0].args, commands[1].args, commands[2].args)
			if err != nil {
				return err
			}
			for i := range commands {
				cpu[i] = append(cpu[i], sum[i].Seconds()*1000)
				wall[i] = append(wall[i], took[i].Seconds()*1000)
			}
		}
		name := fmt.Sprintf("%d KB", size>>10)
		for i, c := range commands {
			s.Add(name+", "+c.name+": CPU", "ms", cpu[i]...)
			s.Add(name+", "+c.name+": wall", "ms", wall[i]...)
		}
		var goal *report.Goal
		if size == 10<<10 {
			goal = report.AtMost(1.5)
		}
		s.Reach(goal, name+": CPU of mxpipe over an empty Go program", "×", cpu[2].Over(cpu[0])...)
		s.Add(name+": CPU of mxpipe over the C program", "×", cpu[2].Over(cpu[1])...)
	}
	return nil
}

// spawn starts each command so often, in turn, and gives the means.
func (b *bench) spawn(times int, text []byte, commands ...[]string) (cpu, wall []time.Duration, err error) {
	cpu, wall = make([]time.Duration, len(commands)), make([]time.Duration, len(commands))
	input, err := os.Create(filepath.Join(b.dir, "input"))
	if err != nil {
		return nil, nil, err
	}
	defer input.Close()
	if _, err := input.Write(text); err != nil {
		return nil, nil, err
	}
	for range times {
		for i, args := range commands {
			if _, err := input.Seek(0, io.SeekStart); err != nil {
				return nil, nil, err
			}
			cmd := exec.CommandContext(b.ctx, args[0], args[1:]...)
			cmd.Stdin = input
			start := time.Now()
			if err := cmd.Run(); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", args[0], err)
			}
			wall[i] += time.Since(start) / time.Duration(times)
			cpu[i] += (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()) / time.Duration(times)
		}
	}
	return cpu, wall, nil
}

// answerer takes mxpipe's place at the other end: it accepts every message.
type answerer struct {
	path     string
	listener net.Listener
	serving  sync.WaitGroup
}

func startAnswerer(path string) (*answerer, error) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	a := &answerer{path: path, listener: listener}
	a.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				a.serving.Go(func() { answer(conn) })
			}
		}
	})
	return a, nil
}

func answer(conn net.Conn) {
	defer conn.Close()
	r := wire.NewReader(conn)
	if _, err := r.Envelope(); err != nil {
		return
	}
	if _, err := r.WriteTo(io.Discard); err != nil {
		return
	}
	_, _ = conn.Write(wire.AppendAnswer(nil, wire.Answer{Code: "2.0.0", Text: "delivered"}))
}

func (a *answerer) stop() {
	a.listener.Close()
	a.serving.Wait()
}
