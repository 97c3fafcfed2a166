package sasl

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const password = "Kq7-geheim+Wort/93zU"

// The first mechanism of the administrator's order that is offered is taken.
func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		order   []Mechanism
		offered string
		want    string
	}{
		{Default(), "LOGIN PLAIN SCRAM-SHA-256", "SCRAM-SHA-256"},
		{Default(), "LOGIN PLAIN", "PLAIN"},
		{[]Mechanism{Login, Plain}, "plain login", "LOGIN"},
		{[]Mechanism{External}, "PLAIN EXTERNAL", "EXTERNAL"},
		{[]Mechanism{OAuthBearer}, "PLAIN XOAUTH2", ""},
		{Default(), "", ""},
		{Default(), "SCRAM-SHA-256-PLUS CRAM-MD5", ""},
	} {
		c := New("bob", password, tt.order)
		e, err := c.Choose(strings.Fields(tt.offered), Server{"smtp.example", 587})
		if (err != nil) != (tt.want == "") || err != nil && !errors.Is(err, ErrNone) {
			t.Errorf("%v of %s: %v", tt.order, tt.offered, err)
			continue
		}
		if err != nil {
			continue
		}
		if mech, _, err := e.Start(); err != nil || mech != tt.want || e.Mechanism.String() != tt.want {
			t.Errorf("%v of %s: %s %v, want %s", tt.order, tt.offered, mech, err, tt.want)
		}
	}
}

// No formatted value shows the password, however it is written.
func TestCredentialsAreNotShown(t *testing.T) {
	c := New("bob", password, Default())
	e, err := c.Choose([]string{"SCRAM-SHA-256"}, Server{})
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		for _, value := range []any{c, *c, struct{ C *Credentials }{c}, e.Mechanism} {
			if text := fmt.Sprintf(verb, value); strings.Contains(text, "geheim") || strings.Contains(text, fmt.Sprintf("%x", "geheim")) {
				t.Errorf("%s shows it: %s", verb, text)
			}
		}
	}
	odd := New("bob", "tab\tnext", Default())
	if _, err := odd.Choose([]string{"SCRAM-SHA-256"}, Server{}); err == nil || strings.Contains(err.Error(), "tab") {
		t.Errorf("a password that SCRAM does not allow: %v", err)
	}
}

// The password is hidden in each form in which it was sent, whole or in parts.
func TestHide(t *testing.T) {
	c := New("bob", password, Default())
	plain := base64.StdEncoding.EncodeToString([]byte("\x00bob\x00" + password))
	bearer := base64.StdEncoding.EncodeToString([]byte("n,a=bob,\x01host=smtp.example\x01port=587\x01auth=Bearer " + password + "\x01\x01"))
	for text, want := range map[string]string{
		"2.0.0 ok: queued as 4XyZ":     "2.0.0 ok: queued as 4XyZ",
		"no: " + password:              "no: (hidden)",
		password + " and " + password:  "(hidden) and (hidden)",
		"no: " + password[:12] + "...": "no: (hidden)...",
		"no: " + password[8:]:          "no: (hidden)",
		"":                             "",
		base64.StdEncoding.EncodeToString([]byte(password)): "(hidden)=",
	} {
		if got := c.Hide(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"unknown: AUTH PLAIN " + plain, "unknown: " + bearer, plain[:30], bearer[len(bearer)-24:]} {
		got := c.Hide(text)
		if !strings.Contains(got, "(hidden)") {
			t.Errorf("%q is left as %q", text, got)
		}
	}
	if got := New("bob", "abc", Default()).Hide("no: abc"); got != "no: (hidden)" {
		t.Errorf("a short one: %q", got)
	}
}

// No challenge makes a mechanism go wrong, and none has it go on for ever.
func FuzzExchange(f *testing.F) {
	f.Add(uint8(0), "r=x,s=QUJD,i=4096", "v=QUJD")
	f.Add(uint8(2), "User Name\x00", "Password:")
	f.Add(uint8(3), `{"status":"invalid_token"}`, "")
	c := New("bob", password, Mechanisms[:])
	f.Fuzz(func(t *testing.T, m uint8, first, second string) {
		e, err := c.exchange(Mechanisms[int(m)%len(Mechanisms)], Server{"smtp.example", 587})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := e.Start(); err != nil {
			t.Fatal(err)
		}
		// What is asked for in passing costs little: see maxIterations.
		for n, challenge := range []string{first, second, first, second, first} {
			if strings.Contains(challenge, "i=") && len(challenge) > 60 {
				return
			}
			if _, err := e.Next([]byte(challenge)); err != nil {
				return
			}
			if n == 4 {
				t.Errorf("%v answers five challenges", e.Mechanism)
			}
		}
		if e.Proven != nil && e.Proven() {
			t.Error("a server that knows no password has proven that it does")
		}
	})
}

// Whatever is around it, no part of a password of eight bytes and more is left.
func FuzzHide(f *testing.F) {
	f.Add("535 5.7.8 no: ", " for bob", uint8(0), uint8(20))
	c := New("bob", password, Default())
	f.Fuzz(func(t *testing.T, before, after string, from, length uint8) {
		a := int(from) % len(password)
		b := min(len(password), a+int(length))
		got := c.Hide(before + password[a:b] + after)
		for i := 0; i+part <= len(password); i++ {
			if strings.Contains(got, password[i:i+part]) {
				t.Errorf("%q is left", got)
			}
		}
	})
}
