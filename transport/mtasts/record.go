package mtasts

import "strings"

// Record is an MTA-STS TXT record (RFC 8461 §3.1).
type Record struct {
	// ID names the published policy, 1 to 32 letters and digits. A sender that
	// sees another id than before fetches the policy anew; ids have no order.
	ID string
}

const (
	recordVersion = "v=STSv1"
	wsp           = " \t"
)

// ParseRecord finds and reads the MTA-STS record among all TXT records at
// RecordName, the strings of each already joined without blanks (RFC 8461
// §3.1). Other records beside it are ignored. The error is ErrNoRecord when
// none is there, ErrSeveralRecords when there are several, and ErrMalformed
// when the one that is there breaks the grammar.
func ParseRecord(txts []string) (Record, error) {
	var exact, blank []string
	for _, txt := range txts {
		rest, ok := strings.CutPrefix(txt, recordVersion)
		switch {
		case !ok:
		case strings.HasPrefix(rest, ";"):
			exact = append(exact, txt)
		case strings.HasPrefix(strings.TrimLeft(rest, wsp), ";"):
			// The prose of §3.1 discards what does not begin with "v=STSv1;",
			// its ABNF allows blanks before the semicolon. Such a record
			// counts where the prose leaves none.
			blank = append(blank, txt)
		}
	}
	if len(exact) == 0 {
		exact = blank
	}
	switch {
	case len(exact) == 0:
		return Record{}, ErrNoRecord
	case len(exact) > 1:
		return Record{}, ErrSeveralRecords
	}
	return parseFields(exact[0])
}

func parseFields(txt string) (Record, error) {
	var rec Record
	fields := strings.Split(txt, ";")
	for i, field := range fields[1:] {
		field = strings.TrimLeft(field, wsp)
		last := i == len(fields)-2
		if !last {
			field = strings.TrimRight(field, wsp)
		} else if field == "" {
			break // the semicolon at the end
		}
		name, value, ok := strings.Cut(field, "=")
		if !ok || !isFieldName(name) || !isFieldValue(value) {
			return Record{}, malformed("MTA-STS record: field %.40q is not name=value", field)
		}
		// Of duplicates the first counts; the others only have to be fields.
		if name == "id" && rec.ID == "" {
			if !isID(value) {
				return Record{}, malformed("MTA-STS record: the id %.40q is not 1 to 32 letters and digits", value)
			}
			rec.ID = value
		}
	}
	if rec.ID == "" {
		return Record{}, malformed("MTA-STS record: it has no id")
	}
	return rec, nil
}

func isID(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !isAlnum(s[i]) {
			return false
		}
	}
	return true
}

// isFieldValue follows sts-ext-value.
func isFieldValue(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= 0x20 || c >= 0x7f || c == '=' || c == ';' {
			return false
		}
	}
	return true
}
