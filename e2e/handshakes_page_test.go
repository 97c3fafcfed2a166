package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

const (
	handshakesPage = "../docs/handshakes.md"
	hour           = time.Hour
)

// handshakeTable is the table of the page.
type handshakeTable struct {
	before, after string // what stands around it
	tools         string // with which it was made
	rows          map[string][]string
}

// toolsLine begins the line that names what the table was made with.
const toolsLine = "Seen with "

// readHandshakes reads the page.
func readHandshakes(t *testing.T) *handshakeTable {
	t.Helper()
	text, err := os.ReadFile(handshakesPage)
	if err != nil {
		t.Fatal(err)
	}
	p := &handshakeTable{rows: map[string][]string{}}
	state := &p.before
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.HasPrefix(line, toolsLine):
			p.tools = strings.TrimSuffix(strings.TrimSpace(strings.TrimPrefix(line, toolsLine)), ":")
		case strings.HasPrefix(line, "| "):
			cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			p.rows[cells[0]] = cells[1:]
			state = &p.after
		case strings.HasPrefix(line, "|---"):
		default:
			*state += line
		}
	}
	delete(p.rows, "The server")
	return p
}

func (p *handshakeTable) sameTools(tools string) bool { return p.tools == tools }

// write writes the page anew.
func (p *handshakeTable) write(t *testing.T, rows []tlsServer, played map[string][]string, tools string) {
	t.Helper()
	var b strings.Builder
	b.WriteString(strings.TrimRight(p.before, "\n") + "\n\n" + toolsLine + tools + ":\n\n| The server |")
	for _, c := range protections {
		fmt.Fprintf(&b, " %s |", c.name)
	}
	b.WriteString(" what is missing |\n" + strings.Repeat("|---", len(protections)+2) + "|\n")
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s | %s |\n", row.title(), strings.Join(played[row.title()], " | "))
	}
	b.WriteString("\n" + strings.TrimLeft(p.after, "\n"))
	if err := write(handshakesPage, b.String()); err != nil {
		t.Fatal(err)
	}
}

// toolsHere names what the table's results depend on.
func toolsHere(t *testing.T) string {
	t.Helper()
	version := func(pattern, name string, args ...string) string {
		out, err := exec.Command(name, args...).CombinedOutput()
		m := regexp.MustCompile(pattern).FindSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(m[1])
	}
	return strings.Join([]string{
		"Postfix " + version(`(\d+\.\d+)`, "postconf", "-h", "mail_version"),
		"OpenSSL " + version(`OpenSSL (\d+\.\d+)`, "openssl", "version"),
		"Go " + regexp.MustCompile(`\d+\.\d+`).FindString(runtime.Version()),
	}, ", ")
}
