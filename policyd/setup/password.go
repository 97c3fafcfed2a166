package setup

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
	"github.com/mxpipe/mxpipe/transport/relay"
)

// This file hands the password that a mail server has for its relay over to
// mxpolicyd: into a file that the daemon alone may read, which mxpolicyd.yaml
// names. The password is shown nowhere, and no record has it.

// Secret is a file with a password: a path, and a fingerprint in place of the
// text.
const Secret Kind = "password"

// PasswordServer is what the record of a relay's password is kept under.
const PasswordServer = "relay"

// passwordFile is its name beside mxpolicyd.yaml.
const passwordFile = "relay.password"

// fingerprint tells whether a file still has what was written, and takes long
// to guess a password from.
func fingerprint(name string, text []byte) string {
	sum, err := pbkdf2.Key(sha256.New, string(text), []byte(name), 200_000, sha256.Size)
	if err != nil {
		return "" // it could only be for the length
	}
	return hex.EncodeToString(sum)
}

// Password plans the file with the password of the mail server's relay.
func (m Machine) Password(ctx context.Context, server string) (Plan, error) {
	login, err := m.relayLogin(ctx, server)
	if err != nil {
		return Plan{}, err
	}
	name := filepath.Join(m.Records, passwordFile)
	text := login.password + "\n"
	if _, problem := relay.Password([]byte(text)); problem != "" {
		return Plan{}, refuse("write the file by hand", "the password of %s %s", login.host, problem)
	}
	print := fingerprint(name, []byte(text))
	c := Change{Kind: Secret, Name: name, After: &print, secret: text}
	if c.Before, err = m.current(ctx, Secret, name); err != nil {
		return Plan{}, err
	}
	if c.Before != nil && *c.Before != print {
		return Plan{}, refuse("remove it, or write the password there by hand", "%s is there, with another password", name)
	}
	p := Plan{Server: PasswordServer, Way: Way(server), Steps: []Step{{Changes: []Change{c}}}}
	tls := ""
	if login.implicit {
		tls = ", tls: implicit"
	}
	p.Next = fmt.Sprintf("write in mxpolicyd.yaml, in transports.default, and then run systemctl reload mxpolicyd:\n    relay: {host: %q%s, user: %s, password_file: %s}\n",
		login.host+":"+strconv.Itoa(login.port), tls, strconv.Quote(login.user), name)
	return p, nil
}

// relayLogin is what a mail server has for its relay.
type relayLogin struct {
	host           string
	port           int
	implicit       bool // TLS from the first byte
	user, password string
}

func (m Machine) relayLogin(ctx context.Context, server string) (relayLogin, error) {
	if server == "exim" {
		return eximLogin(eximDir)
	}
	p, err := m.Postfix(ctx)
	if err != nil {
		return relayLogin{}, err
	}
	nexthop := p.Settings["relayhost"]
	if nexthop == "" {
		return relayLogin{}, refuse("", "Postfix has no relayhost")
	}
	l := relayLogin{implicit: p.Settings["smtp_tls_wrappermode"] == "yes"}
	l.host, l.port = mailserver.HostPort(nexthop)
	for _, table := range strings.FieldsFunc(p.Settings["smtp_sasl_password_maps"], func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		for _, key := range []string{nexthop, l.host} {
			found, err := m.Run(ctx, "postmap", "-q", key, table)
			if err != nil {
				continue // it has none
			}
			if name, password, ok := strings.Cut(strings.TrimSuffix(found, "\n"), ":"); ok {
				l.user, l.password = name, password
				return l, nil
			}
		}
	}
	return l, refuse("", "Postfix has no password for %s (smtp_sasl_password_maps)", nexthop)
}

// eximLogin reads Debian's passwd.client.
func eximLogin(dir string) (relayLogin, error) {
	x, err := ReadExim(dir)
	if err != nil {
		return relayLogin{}, err
	}
	l := relayLogin{}
	if l.host, l.port = mailserver.Smarthost(x.Settings["dc_smarthost"]); l.host == "" {
		return l, refuse("", "Exim has no smarthost (dc_smarthost)")
	}
	l.implicit = l.port == int(relay.Implicit.Port())
	text, err := os.ReadFile(filepath.Join(dir, "passwd.client"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimRight(line, "\r\n"), ":", 3)
		if len(parts) < 3 || strings.HasPrefix(line, "#") {
			continue
		}
		if matched, err := path.Match(strings.ToLower(strings.TrimSpace(parts[0])), l.host); err == nil && matched {
			l.user, l.password = parts[1], parts[2]
			return l, nil
		}
	}
	return l, refuse("", "Exim has no password for %s (passwd.client)", l.host)
}

// withPassword adds to the record of a mail server's set-up that of the
// password that was taken from it. The error is ErrNothingToUndo when there is
// neither.
func (m Machine) withPassword(p Plan, server string, err error) (Plan, error) {
	if server == PasswordServer || err != nil && !errors.Is(err, ErrNothingToUndo) {
		return p, err
	}
	password, none := m.load(PasswordServer)
	switch {
	case none != nil && !errors.Is(none, ErrNothingToUndo):
		return p, none
	case none != nil || password.Way != Way(server):
		return p, err
	}
	p.Server, p.password = server, true
	p.Steps = append(password.Steps, p.Steps...) // taken back last
	return p, nil
}

// currentSecret is the fingerprint of the password that is there; nil: none is.
func currentSecret(name string) (*string, error) {
	text, err := config.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	print := fingerprint(name, text)
	return &print, nil
}

// writeSecret writes a file that only the daemon's user may read, whole or not
// at all. Where that user does not exist it belongs to the one that writes it.
func writeSecret(name, text string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return replace(name, text, func(f *os.File) error {
		account, unknown := user.Lookup(config.ServiceUser)
		if unknown != nil || os.Geteuid() != 0 {
			return nil
		}
		uid, errUID := strconv.Atoi(account.Uid)
		gid, errGID := strconv.Atoi(account.Gid)
		if err := errors.Join(errUID, errGID); err != nil {
			return err
		}
		return f.Chown(uid, gid)
	})
}
