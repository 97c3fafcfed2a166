package policyd

import (
	"crypto/tls"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/history"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/fallback"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/source"
	"github.com/mxpipe/mxpipe/transport/suspension"
)

// loadSuspended reads what was suspended before a restart.
func (d *Daemon) loadSuspended() {
	var err error
	if d.suspended, err = suspension.Open(d.options.Config.StateDir, time.Now); err != nil {
		d.log.Error("what was suspended is not known; nothing is", "error", err)
	}
	for _, s := range d.suspended.All() {
		d.log.Warn("still suspended", "target", s.Target.String(), "text", s.Reason)
	}
}

// loadFailing reads which destinations failed before a restart.
func (d *Daemon) loadFailing() {
	var err error
	if d.failing, err = fallback.Open(d.options.Config.StateDir, time.Now); err != nil {
		d.log.Warn("since when destinations fail is not known; each begins anew", "error", err)
	}
}

// saveFailing writes that down.
func (d *Daemon) saveFailing() {
	if err := d.failing.Save(); err != nil {
		d.log.Warn("since when destinations fail is not kept", "error", err)
	}
}

// loadDaily reads how much sources sent on this day before a restart.
func (d *Daemon) loadDaily() {
	var err error
	if d.daily, err = source.OpenDaily(d.options.Config.StateDir, time.Now); err != nil {
		d.log.Warn("how much each source sent today is not known; each begins the day anew", "error", err)
	}
}

// saveDaily writes that down.
func (d *Daemon) saveDaily() {
	if err := d.daily.Save(); err != nil {
		d.log.Warn("how much each source sent today is not kept", "error", err)
	}
}

// loadHistory reads the deliveries of before a restart, if they are kept.
func (d *Daemon) loadHistory() {
	cfg := d.options.Config
	if !cfg.History.Keep {
		d.history = history.New(historyOptions(cfg))
		return
	}
	var err error
	if d.history, err = history.Open(cfg.StateDir, historyOptions(cfg)); err != nil {
		d.log.Warn("the history of deliveries cannot be kept; it begins anew", "error", err)
	}
}

func historyOptions(cfg *config.Config) history.Options {
	return history.Options{Entries: cfg.History.Entries, Memory: int(cfg.History.Memory), Addresses: cfg.History.Addresses}
}

// addToHistory adds a delivery to the history: an entry for each result that
// its recipients had.
func (d *Daemon) addToHistory(e *transport.Event) {
	now := time.Now()
	var entries []history.Entry
	for i := range e.Outcomes {
		o := &e.Outcomes[i]
		code, text := o.Status.Code.String(), reply.Line(o.Status.Error())
		n := len(entries) - 1
		for n >= 0 && (entries[n].Code != code || entries[n].Text != text) {
			n--
		}
		if n < 0 {
			entries = append(entries, d.newEntry(e, o, now))
			n = len(entries) - 1
		}
		entries[n].Count++
		entries[n].Recipients = append(entries[n].Recipients, reply.Line(o.Recipient))
	}
	for i := range entries {
		d.history.Add(entries[i])
	}
}

// countProviders counts what became of recipients at each provider.
func (d *Daemon) countProviders(e *transport.Event) {
	providers := d.runtime.Providers()
	if providers == nil {
		return
	}
	for i := range e.Outcomes {
		if o := e.Outcomes[i].Status; o.Host != "" {
			d.metrics.Provider(providers.Of(o.Host).Name, o.Code)
		}
	}
}

// newEntry writes what is the same for all recipients with a result.
func (d *Daemon) newEntry(e *transport.Event, o *transport.Outcome, now time.Time) history.Entry {
	entry := history.Entry{
		At: now, Transport: e.Transport, ID: e.Envelope.ID, QueueID: reply.Line(e.Envelope.QueueID),
		Destination: e.Destination.String(), Sender: reply.Line(e.Envelope.Sender),
		Code: o.Status.Code.String(), Text: reply.Line(o.Status.Error()), Took: history.Seconds(e.Took),
		Via: e.Relay,
	}
	if e.Destination.Domain == "" && e.Took == 0 {
		entry.Destination = "" // it has none
	}
	if o.Status.Host != "" {
		entry.Host = o.Status.Host
		if providers := d.runtime.Providers(); providers != nil {
			entry.Provider = providers.Of(o.Status.Host).Name
		}
	}
	for i := len(e.Attempts) - 1; i >= 0; i-- {
		a := &e.Attempts[i]
		if a.Verdict.Host != o.Status.Host || !a.Addr.IsValid() {
			continue
		}
		entry.Address, entry.Source = a.Addr.String(), a.Local.String()
		entry.TLSLevel, entry.MXLevel, entry.Reused = a.Proof.Level().String(), a.Verdict.MX.String(), a.Reused
		if a.Proof.TLS != 0 {
			entry.TLS = strings.ReplaceAll(tls.VersionName(a.Proof.TLS), " ", "")
		}
		break
	}
	for p, took := range e.Phases {
		if took > 0 {
			entry.Phases = append(entry.Phases, history.Phase{Name: transport.Phase(p).String(), Took: history.Seconds(took)})
		}
	}
	return entry
}
