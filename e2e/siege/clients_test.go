package siege

import (
	"context"
	"fmt"
	"strings"

	"github.com/mxpipe/mxpipe/internal/wire"
)

// clients are local users who may use the sockets, and are not well disposed.
func clients() []attack {
	return []attack{
		{
			name: "half pipe", most: 120,
			does: "1,000 half-sent messages by pipe",
			run: func(ctx context.Context, f *field) error {
				e := wire.Envelope{Sender: "s@half.example", Recipients: []wire.Recipient{{Address: "x@half.example"}}}
				raw, err := wire.AppendEnvelope(nil, &e)
				if err != nil {
					return err
				}
				hold(ctx, "unix", f.daemon.pipe, f.n(1000), string(wire.AppendData(raw, []byte("Sub"))))
				return nil
			},
		},
		{
			name: "half LMTP", most: 120,
			does: "1,000 half-sent messages by LMTP",
			run: func(ctx context.Context, f *field) error {
				hold(ctx, "unix", f.daemon.lmtp, f.n(1000), "LHLO x\r\nMAIL FROM:<s@half.example>\r\nRCPT TO:<x@half.example>\r\nDATA\r\nSub")
				return nil
			},
		},
		{
			name: "recipients", most: 300,
			does: "330 LMTP connections with 1,000 recipients of 1 KB each",
			run: func(ctx context.Context, f *field) error {
				domain := strings.Repeat("."+strings.Repeat("d", 60), 3)[1:]
				one := fmt.Sprintf("RCPT TO:<%s@%s> ORCPT=rfc822;%s\r\n", strings.Repeat("l", 60), domain, strings.Repeat("o", 700))
				hold(ctx, "unix", f.daemon.lmtp, f.n(330), "LHLO x\r\nMAIL FROM:<s@flood.example>\r\n"+strings.Repeat(one, 1000))
				return nil
			},
		},
		{
			name: "deaf LMTP", most: 120,
			does: "500 LMTP connections that send 1,000 commands each and read no reply",
			run: func(ctx context.Context, f *field) error {
				hold(ctx, "unix", f.daemon.lmtp, f.n(500), "LHLO x\r\n"+strings.Repeat("RSET\r\n", 1000))
				return nil
			},
		},
		{
			name: "metrics", most: 60,
			does: "9,000 idle connections to the metrics port",
			run: func(ctx context.Context, f *field) error {
				hold(ctx, "tcp", f.daemon.metric, f.n(9000), "")
				return nil
			},
		},
		{
			name: "deaf metrics", most: 60,
			does: "100 connections that ask for the metrics ten times each and read no answer",
			run: func(ctx context.Context, f *field) error {
				hold(ctx, "tcp", f.daemon.metric, f.n(100), strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 10))
				return nil
			},
		},
		{
			name: "idle socketmap", most: 60,
			does: "2,000 idle connections to the socketmap, with half a question each",
			run: func(ctx context.Context, f *field) error {
				hold(ctx, "unix", f.daemon.socketmap, f.n(2000), "90:policy half")
				return nil
			},
		},
		{
			name: "deaf socketmap", most: 60,
			does: "100 connections that ask the socketmap 1,000 questions each and read no answer",
			run: func(ctx context.Context, f *field) error {
				hold(ctx, "unix", f.daemon.socketmap, f.n(100), strings.Repeat("22:policy d0.good.example,", 1000))
				return nil
			},
		},
		{
			name: "admin", most: 60,
			does: "200 connections to the admin socket that ask for everything and read no answer",
			run: func(ctx context.Context, f *field) error {
				ask := ""
				for _, path := range []string{"status", "cache", "history"} {
					ask += strings.Repeat("GET /v1/"+path+" HTTP/1.1\r\nHost: x\r\n\r\n", 50)
				}
				hold(ctx, "unix", f.daemon.admin, f.n(200), ask)
				return nil
			},
		},
	}
}
