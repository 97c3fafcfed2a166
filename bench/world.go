package main

import (
	"fmt"

	"github.com/mxpipe/mxpipe/bench/internet"
	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// sinks are the remote mail servers. Each has a port of its own, and so a
// transport of its own in mxpolicyd.
type sinks struct {
	port  *ports.Reservation // main's
	main  *internet.Sink     // as well-kept servers are
	fresh *internet.Sink     // does not resume TLS sessions
	rsa   *internet.Sink     // likewise, with RSA certificates
}

// startInternet starts the DNS and the mail servers.
func (b *bench) startInternet() error {
	// TLSA records stand below a port, so that one must be known before.
	var err error
	if b.sinks.port, err = ports.Reserve(); err != nil {
		return err
	}
	port := b.sinks.port.Port()
	if b.net, err = internet.Start(port); err != nil {
		return err
	}
	for _, s := range []struct {
		into    **internet.Sink
		options internet.SinkOptions
	}{
		{&b.sinks.main, internet.SinkOptions{Port: port}},
		{&b.sinks.fresh, internet.SinkOptions{NoResumption: true}},
		{&b.sinks.rsa, internet.SinkOptions{NoResumption: true, Key: ca.RSA}},
	} {
		if *s.into, err = b.net.Sink(s.options); err != nil {
			b.net.Stop()
			return fmt.Errorf("mail server: %w", err)
		}
	}
	return nil
}
