package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"strings"
	"time"
)

// sender is the author of every message.
const sender = "ann@demo.example"

// content is what the messages have in common.
type content struct {
	date       string
	attachment string // base64, in lines
}

// newContent draws the picture that is attached to every message.
func newContent() (content, error) {
	picture := image.NewRGBA(image.Rect(0, 0, 160, 100))
	for y := range 100 {
		for x := range 160 {
			fx, fy := float64(x), float64(y)
			wave := func(a, b float64) uint8 { return uint8(128 + 127*math.Sin(fx/a+math.Sin(fy/b)*3)) }
			picture.Set(x, y, color.RGBA{wave(17, 11), wave(23, 19), wave(31, 13), 255})
		}
	}
	var file bytes.Buffer
	if err := png.Encode(&file, picture); err != nil {
		return content{}, err
	}
	text := base64.StdEncoding.EncodeToString(file.Bytes())
	const line = 76 // RFC 2045 §6.8
	var lines strings.Builder
	for ; len(text) > line; text = text[line:] {
		lines.WriteString(text[:line] + "\n")
	}
	lines.WriteString(text)
	return content{time.Now().Format(time.RFC1123Z), lines.String()}, nil
}

// message writes a message as a mail server hands it over: lines end with LF.
// Its text has what goes wrong on bad roads: a line that starts with a dot, one
// that starts with From, bytes over 127, white space at an end.
func (c *content) message(m *message) []byte {
	to := make([]string, len(m.to))
	for i, local := range m.to {
		to[i] = local + "@" + m.domain
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `Received: from workplace (localhost [127.0.0.1])
	by mail.demo.example (Postfix) with ESMTP id %[1]s; %[2]s
Date: %[2]s
From: Ann Ångström <%[3]s>
To: %[4]s
Subject: A picture of the waves, for %[5]s
Message-ID: <%[1]s.demo@demo.example>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="=_waves"
`, m.queueID, c.date, sender, strings.Join(to, ", "), m.domain)
	if m.header != "" {
		b.WriteString(m.header + "\n")
	}
	fmt.Fprintf(&b, `
This is a message in MIME format.

--=_waves
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Dear reader,

here is the picture that I promised. It was drawn
...with sines, and it shows no more than that.

From here it looks like the sea near Malmö. 
.
Best regards, Ann
--=_waves
Content-Type: image/png; name="waves.png"
Content-Disposition: attachment; filename="waves.png"
Content-Transfer-Encoding: base64

%s
--=_waves--
`, c.attachment)
	return b.Bytes()
}
