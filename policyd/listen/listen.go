// Package listen opens the sockets that mxpolicyd serves: those that systemd
// hands over by name (sd_listen_fds(3)), and those that the configuration names
// and systemd did not hand over.
//
// An Endpoint says what a socket is for; it is the same for both. A socket at
// which strangers could send mail, rule the daemon or forge its answers is
// refused, no matter what opened it. A unix socket of our own has its group and
// mode before anyone can connect, and takes the place of a socket file at which
// nothing listens any more.
//
// Closing a socket of systemd's leaves it, and who waits at it, with systemd;
// one of our own is gone with its file.
package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// ErrNoSocket says that there is nothing to serve.
var ErrNoSocket = errors.New("no socket to serve: systemd passed none, and listen names none")

// Socket is a socket that is served.
type Socket struct {
	Endpoint
	net.Listener
}

// Sockets is what the daemon listens on. A transport may have several LMTP
// sockets.
type Sockets []Socket

// Close closes all of them.
func (s Sockets) Close() {
	for _, l := range s {
		l.Close()
	}
}

// has reports whether there is a socket for an endpoint.
func (s Sockets) has(e Endpoint) bool {
	return slices.ContainsFunc(s, func(one Socket) bool { return one.Endpoint == e })
}

// Open takes the sockets that systemd handed over, and opens those that are
// configured and were not. What this version does not serve is named in the
// log.
func Open(ctx context.Context, handed []*os.File, cfg *config.Listen, served func(EndpointKind) bool, log *slog.Logger) (Sockets, error) {
	files, err := activated(handed)
	if err != nil {
		return nil, err
	}
	var all Sockets
	for _, name := range slices.Sorted(maps.Keys(files)) {
		l := files[name]
		e, ok := parseEndpoint(name)
		if !ok || !served(e.Kind) {
			log.Warn("systemd passed a socket that is not used", "socket", name)
			l.Close()
			continue
		}
		all = append(all, Socket{e, l})
		if failed := e.Kind.allowedAt(l.Addr()); failed != nil {
			err = errors.Join(err, fmt.Errorf("systemd passed %q: %w", name, failed))
		}
	}
	given := all
	held := map[string]string{}
	for _, s := range given {
		held[s.Endpoint.String()] = s.Addr().String()
	}
	for _, void := range FindVoid(cfg, held) {
		log.Warn("configuration warning", "socket", void.Endpoint.String(), "warning", void.Text)
	}
	for _, at := range configured(cfg) {
		switch {
		case !served(at.Kind):
			if !cfg.Builtin { // otherwise nothing asked
				log.Warn("listen names a socket that is not used", "socket", at.Kind.String())
			}
		case given.has(at.Endpoint) || cfg.Builtin && len(files) > 0 || err != nil:
		default:
			l, failed := at.open(ctx)
			if failed != nil {
				err = fmt.Errorf("listen.%s: %w", at.Kind, failed)
				break
			}
			all = append(all, Socket{at.Endpoint, l})
		}
	}
	if err == nil && len(all) == 0 {
		err = ErrNoSocket
	}
	if err != nil {
		all.Close()
		return nil, err
	}
	return all, nil
}

// listenAddr is where listen wants a socket: a unix socket, or a TCP address.
type listenAddr struct {
	Endpoint
	socket  *config.Socket
	address string
}

// configured gives what listen names.
func configured(cfg *config.Listen) []listenAddr {
	var all []listenAddr
	if cfg.Pipe != nil {
		all = append(all, listenAddr{Endpoint: Endpoint{Kind: KindPipe}, socket: cfg.Pipe})
	}
	for i := range cfg.LMTP {
		all = append(all, listenAddr{Endpoint: Endpoint{KindLMTP, cfg.LMTP[i].Transport}, socket: &cfg.LMTP[i].Socket})
	}
	if s := cfg.Socketmap; s != nil {
		all = append(all, listenAddr{Endpoint: Endpoint{Kind: KindSocketmap}, socket: &s.Socket, address: s.Address})
	}
	if cfg.Admin != nil {
		all = append(all, listenAddr{Endpoint: Endpoint{Kind: KindAdmin}, socket: &cfg.Admin.Socket})
	}
	if cfg.Metrics != "" {
		all = append(all, listenAddr{Endpoint: Endpoint{Kind: KindMetrics}, address: cfg.Metrics})
	}
	return all
}

// open opens a configured socket.
func (a listenAddr) open(ctx context.Context) (net.Listener, error) {
	if a.address == "" {
		return openUnix(ctx, a.socket)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.address)
	if err != nil {
		return nil, err
	}
	if err := a.Kind.allowedAt(l.Addr()); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", a.address, err), l.Close())
	}
	return l, nil
}
