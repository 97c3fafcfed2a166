package transport

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/proxy"
	"github.com/mxpipe/mxpipe/transport/relay"
	"github.com/mxpipe/mxpipe/transport/route"
)

// newProxy makes the way through a proxy, whose name is looked up by the
// resolver of the transport.
func newProxy(cfg *proxy.Config, planning plan.Config, read func(name string) ([]byte, error)) (*proxy.Proxy, error) {
	o := proxy.Options{}
	if cfg.PasswordFile != "" {
		text, err := read(cfg.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("proxy: %w", err)
		}
		var problem string
		if o.Password, problem = relay.Password(text); problem != "" {
			return nil, fmt.Errorf("proxy: %s %s", cfg.PasswordFile, problem)
		}
	}
	finder := route.New(route.Config{Resolver: planning.Resolver})
	o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
		found, err := finder.Addresses(ctx, route.Host{Name: host})
		return found.Addrs, err
	}
	return proxy.New(cfg, o), nil
}

// CheckProxy tries whether the transport's proxy can be reached and takes
// requests from us; nil says that it does, or that there is none.
func (t *Transport) CheckProxy(ctx context.Context) error { return t.base.dialer.CheckProxy(ctx) }
