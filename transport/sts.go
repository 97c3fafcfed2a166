package transport

import (
	"context"

	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Policies knows the MTA-STS policies of domains; *policycache.Cache is one.
type Policies interface {
	Lookup(ctx context.Context, domain string) (policycache.Entry, error)
}

// stsOf is what an entry means for a verdict.
func stsOf(e policycache.Entry) verdict.STS {
	switch e.State {
	case policycache.HasPolicy:
		return verdict.STS{State: verdict.STSFound, Policy: e.Policy}
	case policycache.Failed:
		sts := verdict.STS{State: verdict.STSFailed}
		if e.Err != nil {
			sts.Err = e.Err
		}
		return sts
	}
	return verdict.STS{State: verdict.STSNone}
}
