package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/bench/internet"
	"github.com/mxpipe/mxpipe/bench/measure"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
)

// starts measures how long the daemon takes until it serves.
func (b *bench) starts() error {
	s := b.report.Section("Start of mxpolicyd, from its exec to its readiness")
	state := filepath.Join(b.dir, "state")
	sts := filepath.Join(state, "mtasts_cache")
	if err := os.MkdirAll(sts, 0o700); err != nil {
		return err
	}
	const policies = 10000
	cache, err := store.NewFS(store.FSConfig{Dir: sts, MaxFiles: 2 * policies})
	if err != nil {
		return err
	}
	var all errgroup.Group
	all.SetLimit(32) // each waits for the disk
	for i := range policies {
		all.Go(func() error {
			return cache.Save(store.Policy{Domain: internet.Domain("shared", i), ID: "1", Fetched: time.Now(), Policy: mtasts.Policy{
				Mode: mtasts.ModeEnforce, MaxAge: 7 * 24 * time.Hour, MX: []string{"*.shared.bench"},
			}})
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	var empty, full measure.Sample
	transports := []transportConfig{{"default", b.sinks.main.Port(), ""}}
	for range b.rounds {
		for _, kind := range []struct {
			layout layout
			into   *measure.Sample
		}{
			{layout{transports: transports, sts: "{cache: fs}"}, &empty},
			{layout{transports: transports, sts: "{cache: fs}", state: state}, &full},
		} {
			d, err := b.startDaemon(kind.layout)
			if err != nil {
				return err
			}
			d.stop()
			*kind.into = append(*kind.into, d.start.Seconds()*1000)
		}
	}
	s.Add("nothing cached", "ms", empty...)
	s.Add(fmt.Sprintf("%d MTA-STS policies cached", policies), "ms", full...)
	return nil
}
