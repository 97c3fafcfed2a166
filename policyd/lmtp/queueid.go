package lmtp

import (
	"strings"

	"github.com/mxpipe/mxpipe/transport/message"
)

// maxQueueID bounds a queue id, in bytes.
const maxQueueID = 64

// queueID gives the id that the mail server wrote into the topmost Received
// field, "by host with protocol id ID for recipient; date" (RFC 5321 §4.4);
// empty when there is none.
func queueID(h message.Header) string {
	words := strings.Fields(withoutComments(h.Received()))
	// What stands before "by" is what the client called itself.
	by := false
	for i, word := range words[:max(len(words)-1, 0)] {
		switch {
		case strings.EqualFold(word, "by"):
			by = true
		case by && strings.EqualFold(word, "id"):
			id, _, _ := strings.Cut(words[i+1], ";")
			if isQueueID(id) {
				return id
			}
			return ""
		}
	}
	return ""
}

// withoutComments takes the comments out of a structured field
// (RFC 5322 §3.2.2).
func withoutComments(s string) string {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && depth > 0:
			i++
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			if depth--; depth == 0 {
				b.WriteByte(' ')
			}
		case depth == 0:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isQueueID(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxQueueID
}
