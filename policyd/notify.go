package policyd

import (
	"context"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// delivering is the status line while all is well.
const delivering = "delivering mail"

// ready tells systemd that the sockets are served.
func (d *Daemon) ready() { d.notify(daemon.SdNotifyReady + "\nSTATUS=" + delivering) }

// status shows a line in systemctl status.
func (d *Daemon) status(line string) { d.notify("STATUS=" + line) }

// stopping tells systemd that the daemon ends, and how long that may take:
// shutdown_timeout, and some time for the goodbyes.
func (d *Daemon) stopping(timeout time.Duration) {
	most := timeout + 30*time.Second
	d.notify(daemon.SdNotifyStopping + "\nSTATUS=waiting for deliveries to end\nEXTEND_TIMEOUT_USEC=" + strconv.FormatInt(most.Microseconds(), 10))
}

// watchdog tells systemd that the daemon is healthy, twice as often as it wants
// to hear. When the daemon is not, or does not know in time, nothing is said:
// systemd then starts it anew, and the mail servers try again.
func (d *Daemon) watchdog(ctx context.Context) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("watchdog disabled", "error", err)
	}
	if every == 0 {
		return
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		check, cancel := context.WithTimeout(ctx, every/2)
		err := d.healthy(check)
		cancel()
		switch {
		case err == nil:
			d.notify(daemon.SdNotifyWatchdog)
		case ctx.Err() == nil:
			d.log.Error("not healthy: no watchdog message is sent to systemd", "error", err)
		}
	}
}

// notify says something to systemd (sd_notify(3)), if that is there.
func (d *Daemon) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		d.log.Warn("cannot notify systemd", "error", err)
	}
}
