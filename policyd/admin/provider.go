package admin

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/mxpipe/mxpipe/transport/pause"
	"github.com/mxpipe/mxpipe/transport/provider"
)

// ProviderList is the providers that are known.
type ProviderList struct {
	Providers []Provider `json:"providers"`
}

// Provider is mail hosts that belong together.
type Provider struct {
	Name string `json:"name"`
	// configured, built-in, registrable domain or host
	Origin string `json:"origin"`
	// the names of its hosts; a dot before one stands for all below it
	MX []string `json:"mx"`
}

// NewProviders writes providers.
func NewProviders(from []provider.Provider) ProviderList {
	l := ProviderList{Providers: []Provider{}}
	for _, p := range from {
		l.Providers = append(l.Providers, Provider{clean(p.Name), p.Origin.String(), append([]string{}, p.MX...)})
	}
	return l
}

// Paused is a pause that a receiver asked for.
type Paused struct {
	Name   string    `json:"name"`             // the provider or domain
	Scope  string    `json:"scope"`            // provider, domain or source_ip
	Source string    `json:"source,omitempty"` // the address of ours
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	Trying bool      `json:"trying"` // the time is over, and one message tries
	Reply  string    `json:"reply"`  // that asked for it, without addresses
}

// NewPauses writes pauses.
func NewPauses(from []pause.Paused) []Paused {
	list := []Paused{}
	for i := range from {
		p := &from[i]
		list = append(list, Paused{clean(p.Key.Name), p.Key.Scope.String(), p.Key.Source, p.Since.UTC(), p.Until.UTC(), p.Trying, clean(p.Reply)})
	}
	return list
}

func (s *Server) providers(r *http.Request) (any, error) {
	return s.daemon.Providers(r.URL.Query().Get("host")), nil
}

// Providers asks for the known providers, or for that of a host.
func (c *Client) Providers(ctx context.Context, host string) (l ProviderList, err error) {
	return l, c.ask(ctx, http.MethodGet, "/v1/providers?"+url.Values{"host": {host}}.Encode(), &l)
}
