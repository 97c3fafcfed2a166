package sasl

import (
	"encoding/base64"
	"strings"
)

// hidden stands where a password was.
const hidden = "(hidden)"

// part is how many bytes of a password, or of what it was sent as, are
// recognised by themselves: a server may quote half a command.
const part = 8

// mask finds a password in what a server says.
type mask struct {
	short []string            // forms below part, to be found as a whole
	parts map[string]struct{} // of part bytes each, of all other forms
}

// newMask makes one of all forms in which a password leaves.
func newMask(user, password string) *mask {
	m := &mask{parts: map[string]struct{}{}}
	if password == "" {
		return m
	}
	// base64 of a text that stands behind another depends on where it begins,
	// so that the whole responses are taken.
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	// what stands before the password is no secret
	from := (len(user) + 2) / 3 * 4
	for _, form := range []string{password, base64.StdEncoding.EncodeToString([]byte(password)), plain[from:]} {
		m.add(strings.TrimRight(form, "="))
	}
	// In OAUTHBEARER the token follows host and port, at any of three places.
	for shift := range 3 {
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + password))
		m.add(strings.TrimRight(encoded[min(len(encoded), 4*((shift+2)/3)):], "="))
	}
	return m
}

func (m *mask) add(form string) {
	if form == "" {
		return
	}
	if len(form) < part {
		m.short = append(m.short, form)
		return
	}
	for i := 0; i+part <= len(form); i++ {
		m.parts[form[i:i+part]] = struct{}{}
	}
}

// apply puts "(hidden)" where the text has the password or a part of it.
func (m *mask) apply(text string) string {
	for _, form := range m.short {
		text = strings.ReplaceAll(text, form, hidden)
	}
	if len(m.parts) == 0 {
		return text
	}
	var b strings.Builder
	done := 0 // what is in b already
	for i := 0; i+part <= len(text); i++ {
		if _, found := m.parts[text[i:i+part]]; !found {
			continue
		}
		end := i + part
		for end < len(text) {
			if _, more := m.parts[text[end-part+1:end+1]]; !more {
				break
			}
			end++
		}
		b.WriteString(text[done:i])
		b.WriteString(hidden)
		done, i = end, end-1
	}
	if done == 0 {
		return text
	}
	b.WriteString(text[done:])
	return b.String()
}
