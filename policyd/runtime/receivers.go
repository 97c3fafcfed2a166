package runtime

import (
	"maps"
	"reflect"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pause"
	"github.com/mxpipe/mxpipe/transport/provider"
	"github.com/mxpipe/mxpipe/transport/replyrule"
)

// receivers is what a configuration says of those that mail goes to: who is
// one provider, and what their replies ask for.
type receivers struct {
	configured []provider.Provider
	replies    []replyrule.Rule
	limits     map[string]limit.Limit
	providers  *provider.Table
	rules      *replyrule.Rules
}

// newReceivers makes what cfg says, or gives the old ones where that is the
// same, so that the transports stay.
func newReceivers(cfg *config.Config, old *receivers) (*receivers, error) {
	if old != nil && reflect.DeepEqual(old.configured, cfg.Providers) && reflect.DeepEqual(old.replies, cfg.Replies) &&
		maps.Equal(old.limits, cfg.ProviderLimits) {
		return old, nil
	}
	r := &receivers{configured: cfg.Providers, replies: cfg.Replies, limits: cfg.ProviderLimits}
	var err error
	if r.providers, err = provider.New(cfg.Providers); err != nil {
		return nil, err
	}
	r.rules, err = replyrule.New(cfg.Replies)
	return r, err
}

// Providers gives the providers of the configuration in force; nil before
// Apply and after Close.
func (rt *Runtime) Providers() *provider.Table {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.current == nil || rt.current.receivers == nil {
		return nil
	}
	return rt.current.receivers.providers
}

// Pauses are those that receivers asked for; they outlast a configuration.
func (rt *Runtime) Pauses() *pause.Pauses { return rt.pauses }

// Load is what all transports have under way at each provider; it outlasts a
// configuration.
func (rt *Runtime) Load() *limit.Providers { return rt.load }
