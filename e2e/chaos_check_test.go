package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// totals are what became of the letters.
type totals struct {
	arrived, bounced, lost, spoiled int
	// sent in the clear although the policy asks for TLS
	leaked      int
	duplicates  int            // copies beyond the first
	reasons     map[string]int // why there were those
	unexplained []string
	tries       int
	// the longest delivery by mxpolicyd's own log
	longest time.Duration
}

// cutOff are the ways in which Postfix hears that a try ended without an
// answer, though the remote server may have taken the message by then.
var cutOff = map[string]string{
	"the daemon closed the connection before it answered": "mxpolicyd killed before it could answer mxpipe",
	"message may be sent more than once":                  "mxpolicyd killed before it could answer by LMTP",
	"mxpolicyd is stopping":                               "mxpolicyd stopped while the remote server was thinking",
}

// checkAllDelivered compares what was submitted with what arrived, and fails on
// what is missing.
func (c *chaos) checkAllDelivered() {
	c.t.Helper()
	b := c.totals()
	c.table(b)
	if b.lost > 0 || b.spoiled > 0 || b.leaked > 0 || len(b.unexplained) > 0 {
		c.t.Errorf("%d lost, %d spoiled, %d leaked, unexplained: %s", b.lost, b.spoiled, b.leaked, strings.Join(b.unexplained, "\n"))
	}
	if left := c.commands(); len(left) > 0 {
		c.t.Errorf("stuck mxpipe processes: %v", left)
	}
	if z := zombies(c.daemon.cmd.Process.Pid, c.out.cmd.Process.Pid); len(z) > 0 {
		c.t.Errorf("zombies: %v", z)
	}
	// A delivery visits two hosts, and at each may wait once for every kind of
	// time-out, and once more for a second connection; what a frozen daemon and
	// a busy machine add comes on top.
	if most := 4*(chaosConnect+chaosCommand+chaosSubmission) + 15*time.Second; b.longest > most {
		c.t.Errorf("a delivery took %s, more than %s", b.longest, most)
	}
	if n := usageOf(c.daemon.cmd.Process.Pid).descriptors; n > 100 {
		c.t.Errorf("mxpolicyd has %d descriptors open in the end", n)
	}
}

func (c *chaos) totals() totals {
	b := totals{reasons: map[string]int{}}
	copies := map[string][][]byte{}
	for _, s := range c.hosts {
		for _, m := range s.Messages() {
			if s.policy && m.TLS == nil {
				b.leaked++
			}
			for _, r := range m.Recipients {
				copies[r.Address] = append(copies[r.Address], m.Body)
			}
		}
	}
	attempts, told := c.out.allAttempts(), toldOf(c.daemon.log)
	for _, l := range c.letters {
		got, tries := copies[l.to], attempts[l.queueID]
		b.tries += len(tries)
		refusal := slices.IndexFunc(tries, func(f attempt) bool { return f.status == "bounced" })
		switch {
		case refusal >= 0 && !(l.refused && tries[refusal].dsn == "5.1.1"):
			b.lost++
			b.unexplained = append(b.unexplained, fmt.Sprintf("%s bounced: %+v", l.to, tries[refusal]))
		case refusal >= 0 && len(got) == 0:
			b.bounced++
		case l.refused || refusal >= 0 || len(got) == 0:
			b.lost++
			b.unexplained = append(b.unexplained, fmt.Sprintf("%s: %d copies: %+v", l.to, len(got), tries))
		default:
			b.arrived++
		}
		want := bytes.ReplaceAll(l.text, []byte("\n"), []byte("\r\n"))
		for _, body := range got {
			if !bytes.HasSuffix(body, want) {
				b.spoiled++
			}
		}
		b.explain(l, len(got)-1, tries, told[l.queueID])
	}
	b.longest = longestTook(c.daemon.log)
	return b
}

// explain finds a reason for each copy beyond the first. told is what mxpolicyd
// logged of the message.
func (b *totals) explain(l *letter, surplus int, tries []attempt, told string) {
	if surplus <= 0 {
		return
	}
	b.duplicates += surplus
	for _, f := range tries {
		if reason := cutOffReason(f, told); surplus > 0 && reason != "" {
			b.reasons[reason]++
			surplus--
		}
	}
	if surplus > 0 {
		b.unexplained = append(b.unexplained, fmt.Sprintf("%s: %d copies too many: %+v\n%s", l.to, surplus, tries, told))
	}
}

// cutOffReason says why a try may have delivered the message although Postfix
// heard of no success.
func cutOffReason(f attempt, told string) string {
	if f.status != "deferred" {
		return ""
	}
	for words, reason := range cutOff {
		if strings.Contains(f.text, words) {
			return reason
		}
	}
	// What mxpipe could not be told any more mxpolicyd writes down, and answers
	// the next try from, unless it is prevented.
	switch {
	case !strings.Contains(f.text, "died with signal 9"):
	case strings.Contains(told, "cannot write down"):
		return "mxpipe killed while the disk was full, and mxpolicyd before it had room again"
	case !strings.Contains(told, "did not wait for the answer"):
		return "mxpipe killed, and mxpolicyd before it had written that down"
	}
	return ""
}

// toldOf gathers the lines of mxpolicyd's log by the queue ids that they name.
func toldOf(log string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(logText(log)) {
		if _, rest, ok := strings.Cut(line, " queue_id="); ok {
			id, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			all[id] += line
		}
	}
	return all
}

// allAttempts lists the tries of all messages by their queue ids.
func (p *postfix) allAttempts() map[string][]attempt {
	all := map[string][]attempt{}
	for _, m := range attemptLine.FindAllStringSubmatch(logText(p.log), -1) {
		all[m[1]] = append(all[m[1]], attemptIn(m))
	}
	return all
}

// longestTook finds the longest delivery in mxpolicyd's log.
func longestTook(log string) (longest time.Duration) {
	for line := range strings.Lines(logText(log)) {
		if _, rest, ok := strings.Cut(line, " took="); ok {
			word, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			if d, err := time.ParseDuration(word); err == nil {
				longest = max(longest, d)
			}
		}
	}
	return longest
}

// zombies lists the dead children that these processes have not waited for.
func zombies(parents ...int) (found []string) {
	for _, pid := range processes() {
		if name, state, parent := stat(pid); state == "Z" && slices.Contains(parents, parent) {
			found = append(found, fmt.Sprintf("%d (%s), child of %d", pid, name, parent))
		}
	}
	return found
}

// table is the last word of the run; with CHAOS_REPORT in the environment it
// goes into that file as JSON too.
func (c *chaos) table(b totals) {
	w := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	defer w.Flush()
	row := func(what string, v any) { fmt.Fprintf(w, "  %s\t%v\n", what, v) }
	fmt.Fprintf(w, "chaos, after %s:\n", time.Since(c.began).Round(time.Second))
	row("messages", len(c.letters))
	row("tries", b.tries)
	row("arrived", b.arrived)
	row("bounced legitimately", b.bounced)
	row("lost", b.lost)
	row("spoiled", b.spoiled)
	row("leaked", b.leaked)
	row("copies too many", b.duplicates)
	for _, reason := range slices.Sorted(maps.Keys(b.reasons)) {
		row("- "+reason, b.reasons[reason])
	}
	row("unexplained", len(b.unexplained))
	for _, event := range slices.Sorted(maps.Keys(c.happened)) {
		row("event: "+event, c.happened[event])
	}
	row("peak of mxpolicyd", c.peak)
	row("longest delivery", b.longest)
	row("time-outs", fmt.Sprintf("connect %s, command %s, submission %s", chaosConnect, chaosCommand, chaosSubmission))
	if path := os.Getenv("CHAOS_REPORT"); path != "" {
		text, _ := json.Marshal(map[string]any{"messages": len(c.letters), "arrived": b.arrived, "bounced": b.bounced,
			"lost": b.lost, "duplicates": b.duplicates, "reasons": b.reasons, "events": c.happened, "longest": b.longest.String()})
		os.WriteFile(path, text, 0o644)
	}
}
