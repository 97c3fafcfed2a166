package tlsrpt

import "strings"

// recordName is where a domain's TLSRPT record lives (RFC 8460 §3).
func recordName(domain string) string { return "_smtp._tls." + domain }

// findRecord finds the one record among the TXT records at that name that asks
// for reports; ok is false when there is none, or more than one (RFC 8460 §3).
func findRecord(texts []string) (record string, ok bool) {
	for _, text := range texts {
		if !isRecord(text) {
			continue
		}
		if ok {
			return "", false
		}
		record, ok = text, true
	}
	return record, ok
}

// isRecord reports whether a TXT record is a TLSRPT record that says where
// reports go. Which of the places can be used is the collector's matter.
func isRecord(text string) bool {
	version, fields, found := strings.Cut(text, ";")
	if !found || strings.TrimRight(version, " \t") != "v=TLSRPTv1" {
		return false
	}
	for field := range strings.SplitSeq(fields, ";") {
		name, value, found := strings.Cut(strings.Trim(field, " \t"), "=")
		if found && strings.TrimRight(name, " \t") == "rua" && strings.Trim(value, " \t") != "" {
			return true
		}
	}
	return false
}
