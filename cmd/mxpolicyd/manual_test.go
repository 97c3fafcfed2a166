package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mxpipe/mxpipe/internal/mdoc"
)

// mxpolicyd(8) has every command with its arguments and flags, and no other.
func TestManualCommands(t *testing.T) {
	page, err := os.ReadFile("../../docs/mxpolicyd.8")
	if err != nil {
		t.Fatal(err)
	}
	root := command()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var want []string
	for _, cmd := range leaves(root) {
		head := strings.TrimPrefix(cmd.CommandPath(), root.Name()+" ")
		_, arguments, _ := strings.Cut(cmd.Use, " ")
		first, _, _ := strings.Cut(arguments, " ")
		switch cmd.Name() {
		case "completion":
			first = "shell"
		case "help":
			first = ""
		}
		if strings.HasPrefix(first, "[") {
			first = "Op " + strings.Trim(first, "[]")
		}
		want = append(want, strings.TrimSpace(head+" "+strings.ReplaceAll(strings.ToLower(first), "op ", "Op ")))
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && cmd.Name() != "completion" {
				want = append(want, "--"+f.Name)
			}
		})
	}
	var got []string
	for _, item := range mdoc.Items(string(page), "COMMANDS") {
		if item.Head == "TERM, INT" {
			break // signals
		}
		if flag, _, _ := strings.Cut(item.Head, " "); strings.HasPrefix(flag, "--") {
			item.Head = flag
		}
		got = append(got, item.Head)
	}
	// The order of the page is its own, but a flag belongs to its command.
	gotSets, wantSets := grouped(got), grouped(want)
	for _, set := range wantSets {
		if !slices.Contains(gotSets, set) {
			t.Errorf("mxpolicyd(8) does not have %q", set)
		}
	}
	for _, set := range gotSets {
		if !slices.Contains(wantSets, set) {
			t.Errorf("mxpolicyd(8) has %q", set)
		}
	}
}

// The comment of the package, which is the manual for those who read the code,
// has every command and flag, and no other.
func TestCommentCommands(t *testing.T) {
	text, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, comment, _ := strings.Cut(string(text), "\n// Mxpolicyd delivers")
	comment, _, _ = strings.Cut(comment, "\n// # Asking")
	root := command()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var commands []string
	flags := map[string]bool{"config": true, "help": true}
	for _, cmd := range leaves(root) {
		commands = append(commands, cmd.CommandPath())
		if cmd.Name() != "completion" {
			cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { flags[f.Name] = true })
		}
	}
	for line := range strings.Lines(comment) {
		if shown, ok := strings.CutPrefix(line, "//\tmxpolicyd "); ok {
			before := len(commands)
			commands = slices.DeleteFunc(commands, func(c string) bool {
				return strings.HasPrefix("mxpolicyd "+shown, c+" ")
			})
			if len(commands) != before-1 {
				t.Errorf("main.go has the command %q", shown)
			}
		}
	}
	if len(commands) > 0 {
		t.Errorf("main.go lacks the commands %q", commands)
	}
	for _, m := range regexp.MustCompile(`(?m)^//\t(?:-., )?--([a-z-]+)`).FindAllStringSubmatch(comment, -1) {
		if !flags[m[1]] {
			t.Errorf("main.go has --%s twice, or there is none", m[1])
		}
		if m[1] != "connect" && m[1] != "for" {
			delete(flags, m[1])
		}
	}
	delete(flags, "connect") // of two commands, with a line each
	delete(flags, "for")
	for name := range flags {
		t.Errorf("main.go lacks --%s", name)
	}
}

// leaves gives the commands that do something.
func leaves(cmd *cobra.Command) (all []*cobra.Command) {
	if !cmd.HasSubCommands() || cmd.Name() == "completion" {
		return []*cobra.Command{cmd}
	}
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			all = append(all, leaves(c)...)
		}
	}
	return all
}

// grouped puts each command together with its flags.
func grouped(heads []string) (all []string) {
	var flags []string
	end := func() {
		if len(all) > 0 {
			slices.Sort(flags)
			all[len(all)-1] = strings.Join(append(all[len(all)-1:], flags...), " ")
		}
		flags = nil
	}
	for _, head := range heads {
		if strings.HasPrefix(head, "--") {
			flags = append(flags, head)
			continue
		}
		end()
		all = append(all, head)
	}
	end()
	return all
}
