package mx

import (
	"errors"
	"strings"
)

var errSyntax = errors.New("bad syntax")

// parsePath reads what follows MAIL FROM: or RCPT TO: (RFC 5321 §4.1.2): a path
// in angle brackets and parameters. It is strict: no space before the path, no
// source route, one space before each parameter.
func parsePath(s string) (address string, params []string, err error) {
	if !strings.HasPrefix(s, "<") {
		return "", nil, errSyntax
	}
	end, quoted, escaped := 0, false, false
scan:
	for i := 1; i < len(s); i++ {
		switch b := s[i]; {
		case b < ' ' || b == 0x7f:
			return "", nil, errSyntax
		case escaped:
			escaped = false
		case quoted && b == '\\':
			escaped = true
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '>':
			end = i
			break scan
		case b == ' ' || b == '<':
			return "", nil, errSyntax
		}
	}
	if end == 0 {
		return "", nil, errSyntax
	}
	address = s[1:end]
	if strings.HasPrefix(address, "@") || strings.HasSuffix(address, "@") {
		return "", nil, errSyntax
	}
	rest := s[end+1:]
	if rest == "" {
		return address, nil, nil
	}
	if rest[0] != ' ' {
		return "", nil, errSyntax
	}
	params = strings.Split(rest[1:], " ")
	for _, p := range params {
		if !goodParam(p) {
			return "", nil, errSyntax
		}
	}
	return address, params, nil
}

// goodParam checks esmtp-param (RFC 5321 §4.1.2), with UTF-8 allowed in the
// value (RFC 6531 §3.3).
func goodParam(p string) bool {
	key, value, given := strings.Cut(p, "=")
	if key == "" || key[0] == '-' || given && value == "" {
		return false
	}
	for _, b := range []byte(key) {
		if !(b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-') {
			return false
		}
	}
	for _, b := range []byte(value) {
		if b <= ' ' || b == '=' || b == 0x7f {
			return false
		}
	}
	return true
}

// paramKeyword returns the extension that a parameter belongs to and whether
// the value can be understood; 0 for a parameter that is unknown for this
// command.
func paramKeyword(verb, param string) (k Keyword, good bool) {
	key, value, given := strings.Cut(param, "=")
	value = strings.ToUpper(value)
	switch key = strings.ToUpper(key); verb + " " + key {
	case "MAIL SIZE":
		return Size, given && strings.Trim(value, "0123456789") == ""
	case "MAIL BODY":
		return EightBitMIME, value == "7BIT" || value == "8BITMIME"
	case "MAIL SMTPUTF8":
		return SMTPUTF8, !given
	case "MAIL REQUIRETLS":
		return RequireTLS, !given
	case "MAIL RET":
		return DSN, value == "FULL" || value == "HDRS"
	case "MAIL ENVID":
		return DSN, given
	case "RCPT NOTIFY":
		return DSN, given
	case "RCPT ORCPT":
		return DSN, strings.Contains(value, ";")
	}
	return 0, false
}

// isASCII says whether s can be sent without SMTPUTF8.
func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
