package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// processes lists the ids of all processes. Any of them may end before it is
// looked at; what is read of it then is empty.
func processes() (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// cmdline is how a process was called, with a NUL after each word.
func cmdline(pid int) string { return ofProcess(pid, "cmdline") }

// environ is what a process was started with, with a NUL after each variable.
func environ(pid int) string { return ofProcess(pid, "environ") }

// stat tells of a process the name of its program, its state (one letter of
// proc_pid_stat(5)) and its parent.
func stat(pid int) (name, state string, parent int) {
	text := ofProcess(pid, "stat")
	end := strings.LastIndexByte(text, ')') // the name itself may hold one
	fmt.Sscan(text[end+1:], &state, &parent)
	_, name, _ = strings.Cut(text[:max(end, 0)], "(")
	return name, state, parent
}

func ofProcess(pid int, file string) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	return string(text)
}
