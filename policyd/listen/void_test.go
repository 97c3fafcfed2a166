package listen

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// Settings of a socket that systemd holds are void, and told once, with what
// differs; the same as systemd's, and those of other sockets, are not.
func TestFindVoid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe.sock")
	l, err := tryOpen(t, &config.Socket{Path: path, Mode: 0o660})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	held := map[string]string{"pipe": path, "lmtp": "/run/l.sock", "socketmap": "127.0.0.1:8461"}
	own := strconv.Itoa(os.Getgid())
	for name, tt := range map[string]struct {
		cfg  config.Listen
		want string // the start of the lines
	}{
		"nothing":         {config.Listen{}, ""},
		"built-in":        {config.Listen{Builtin: true, Pipe: &config.Socket{Path: "/a"}}, ""},
		"the same":        {config.Listen{Pipe: &config.Socket{Path: path, Mode: 0o660}}, ""},
		"the same group":  {config.Listen{Pipe: &config.Socket{Path: path, Mode: 0o660, Group: own}}, ""},
		"a path":          {config.Listen{Pipe: &config.Socket{Path: "/a", Mode: 0o660}}, "listen.pipe: path /a: systemd holds this socket, at " + path},
		"a mode":          {config.Listen{Pipe: &config.Socket{Path: path, Mode: 0o666}}, "listen.pipe: mode 0666: systemd"},
		"a group":         {config.Listen{Pipe: &config.Socket{Path: path, Mode: 0o660, Group: "65533"}}, "listen.pipe: group 65533: systemd"},
		"all":             {config.Listen{Pipe: &config.Socket{Path: "/a", Mode: 0o600, Group: "65533"}}, "listen.pipe: path /a, mode 0600, group 65533: systemd"},
		"not held":        {config.Listen{Admin: &config.Admin{Socket: config.Socket{Path: "/a"}}, Metrics: "127.0.0.1:1"}, ""},
		"an address":      {config.Listen{Socketmap: &config.Socketmap{Address: "127.0.0.1:8462"}}, "listen.socketmap: address 127.0.0.1:8462: systemd"},
		"the same there":  {config.Listen{Socketmap: &config.Socketmap{Address: "127.0.0.1:8461"}}, ""},
		"two of one name": {config.Listen{LMTP: []config.LMTP{{Socket: config.Socket{Path: "/a"}, Transport: "default"}, {Socket: config.Socket{Path: "/b"}, Transport: "default"}}}, "listen.lmtp: path /a: systemd"},
		"another lmtp":    {config.Listen{LMTP: []config.LMTP{{Socket: config.Socket{Path: "/a"}, Transport: "other"}}}, ""},
	} {
		var got []string
		for _, void := range FindVoid(&tt.cfg, held) {
			got = append(got, void.Text)
		}
		if text := strings.Join(got, "\n"); (text == "") != (tt.want == "") || !strings.HasPrefix(text, tt.want) || len(got) > 1 {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// What serve could not open is seen before.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir + "/new.sock":      "",
		dir + "/deep/new.sock": "",
		dir + "/file":          "listen.pipe: " + dir + "/file: the file there is not a socket",
		dir + "/file/new.sock": "listen.pipe: ",
	} {
		err := Check(&config.Listen{Metrics: "127.0.0.1:1", Pipe: &config.Socket{Path: path, Mode: 0o600}})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
