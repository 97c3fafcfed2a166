package served

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/safeio"
)

// A record's file is text. The first line has the format's name and version and
// a digest, in hexadecimal, of the file's own name and of the rest, so that a
// file that was torn, altered or renamed is not believed. Each other line has
// a recipient and the line it was accepted with, both as Go string literals, so
// that no byte of them can end a line:
//
//	mxpipe-served 1 0f3a…
//	"a@example.org" "mx1.example.org: 250 2.0.0 Ok (…)"
const (
	format        = "mxpipe-served 1 "
	oldTempPrefix = "new-"  // of what versions before this one wrote
	maxRecord     = 8 << 20 // bytes
	maxLine       = 500     // of the line a recipient was accepted with
)

var errTooLarge = errors.New("too many recipients for one record")

// encode writes a record.
func encode(name string, got map[string]string) []byte {
	var body []byte
	for rcpt, line := range got {
		if len(line) > maxLine {
			line = strings.ToValidUTF8(line[:maxLine], "")
		}
		body = strconv.AppendQuote(body, rcpt)
		body = append(body, ' ')
		body = strconv.AppendQuote(body, line)
		body = append(body, '\n')
	}
	return append([]byte(format+digest(name, body)+"\n"), body...)
}

func digest(name string, body []byte) string {
	h := sha256.New()
	io.WriteString(h, name+"\n")
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// decode reads a record; nil is none.
func decode(name string, text []byte) map[string]string {
	head, body, _ := bytes.Cut(text, []byte("\n"))
	if string(head) != format+digest(name, body) {
		return nil
	}
	got := map[string]string{}
	for l := range strings.Lines(string(body)) {
		quoted, err := strconv.QuotedPrefix(l)
		if err != nil {
			return nil
		}
		rcpt, err := strconv.Unquote(quoted)
		if err != nil {
			return nil
		}
		line, err := strconv.Unquote(strings.TrimSpace(l[len(quoted):]))
		if err != nil {
			return nil
		}
		got[rcpt] = line
	}
	return got
}

// load reads a record's file. Something else in its place must not have the
// daemon wait for it, or read it without end.
func (m *Store) load(name string) map[string]string {
	f, err := os.OpenFile(filepath.Join(m.dir, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxRecord {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return nil
	}
	return decode(name, text)
}

// writeWhole writes a file so that it is there whole or not at all, and for
// good.
func writeWhole(dir, name string, text []byte) error {
	return safeio.Write(dir, name, text)
}
