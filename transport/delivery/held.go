package delivery

import (
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/provider"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/suspension"
)

// Held is what keeps mail from being sent now, whatever its hosts would say:
// what the administrator has suspended. Nothing is dialled for it. The zero
// Held keeps nothing.
type Held struct {
	Transport string
	Suspended *suspension.List // nil: nothing is
	Providers *provider.Table  // nil: hosts have no provider
}

// target says why a target gets no mail; nil: it may have it.
func (h *Held) target(t *plan.Target) *status.Error {
	if s := h.Target(t); s != nil {
		return s.Err()
	}
	return nil
}

// host says why a host gets no mail, for its provider.
func (h *Held) host(host string) *status.Error {
	if s := h.Host(host); s != nil {
		return s.Err()
	}
	return nil
}

// Target gives the suspension of a target, or of the transport; nil: there is
// none. A next hop is suspended by its name, too.
func (h *Held) Target(t *plan.Target) *suspension.Suspension {
	if h.Suspended == nil {
		return nil
	}
	return h.Suspended.Find(h.Transport, t.Domain, "")
}

// Host gives the suspension of a host's provider; nil: there is none.
func (h *Held) Host(host string) *suspension.Suspension {
	if h.Suspended == nil || h.Providers == nil {
		return nil
	}
	return h.Suspended.Find("", "", h.Providers.Of(host).Name)
}
