package docs

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// oldNames are names that the tree had once and that no one could guess; each
// has a plain one now. Only those are here that mean nothing else.
var oldNames = []string{
	// plan
	"Outlook", "HostOutlook", "maxOutlooks", "outlookTime", "prospect", "testimony",
	"keyOfChain", "maxVouched", "vouched",
	// delivery, session
	"inVain", "settleConnection", "inOneFlight", "inOneTransaction", "noWay", "asStatus", "hostMarks",
	"Lifted", "Underway", "afterTimeout",
	// subjects
	"HostTicket", "knower", "leaveOut",
	// policyd
	"askers", "tallies", "wayEnds", "askerEnds", "cacheEnds", "vacate", "handedOver", "herald",
	"forgo", "soften", "Looker", "weighed",
	// the lab and e2e
	"Habit", "Habits", "TestHabits", "regime", "newRegime", "logbook", "yard", "newYard", "fates",
	"allFates",
}

// oldFiles are files and directories that have another name now.
var oldFiles = []string{
	"outlook.go", "prospect.go", "witness.go", "vouched.go", "visit.go", "ways.go", "ways_test.go", "parts.go",
	"doors.go", "repeats.go", "starter.go", "handover.go", "lost.go", "debt.go", "habit.go", "habits_test.go",
	"chaos_weather_test.go", "chaos_balance_test.go", "strain_test.go", "trouble_test.go",
	"mtasts/policies", "script/wire", "lab/logbook", "lab/dns",
}

// oldPhrases are sentences, for people, that were translated rather than
// written.
var oldPhrases = []string{
	"can not ", " octets", " octet ", "passed over", "put off", "may have it", "It needs nothing;", "a warm one was there",
	"turn too late", "turns too late", "no turn within", "nothing keeps it right", "is gone by", "which no message is",
	"came to nothing", "stranger's way", " mend: ", "found wrong", "would be left out",
}

// The names of old are gone, but for the changelog, which tells of them.
func TestOldNamesAreGone(t *testing.T) {
	identifiers := regexp.MustCompile(`\b(` + strings.Join(oldNames, "|") + `)\b`)
	walk(t, func(name string) {
		for _, old := range oldFiles {
			if strings.HasSuffix("/"+name, "/"+old) || strings.Contains("/"+path.Dir(name)+"/", "/"+old+"/") {
				t.Errorf("%s has a name of old", name)
			}
		}
		kind := []string{".go", ".md", ".1", ".5", ".7", ".8", ".yaml", ".yml", ".sh", ".js", ".html", ".json", ".service", ".socket"}
		if name == "CHANGELOG.md" || name == "docs/names_test.go" || !slices.Contains(kind, path.Ext(name)) || strings.Contains(name, "/testdata/") {
			return
		}
		text := read(t, name)
		for _, phrase := range oldPhrases {
			if i := strings.Index(text, phrase); i >= 0 {
				// What others say is theirs, such as a server's reply.
				if !strings.HasSuffix(text[:i], `"250 2.0.0 86`) {
					t.Errorf("%s:%d: %q is not plain English", name, 1+strings.Count(text[:i], "\n"), phrase)
				}
			}
		}
		if path.Ext(name) == ".go" {
			for _, at := range identifiers.FindAllStringIndex(text, -1) {
				t.Errorf("%s:%d: the name %s is one of old", name, 1+strings.Count(text[:at[0]], "\n"), text[at[0]:at[1]])
			}
		}
	})
}
