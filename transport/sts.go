package transport

import (
	"context"

	"github.com/mxpipe/mxpipe/transport/mtasts/policies"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Policies knows the MTA-STS policies of domains; *policies.Policies is one.
type Policies interface {
	Lookup(ctx context.Context, domain string) (policies.Entry, error)
}

// stsOf is what an entry means for a verdict.
func stsOf(e policies.Entry) verdict.STS {
	switch e.State {
	case policies.HasPolicy:
		return verdict.STS{State: verdict.STSFound, Policy: e.Policy}
	case policies.Failed:
		sts := verdict.STS{State: verdict.STSFailed}
		if e.Err != nil {
			sts.Err = e.Err
		}
		return sts
	}
	return verdict.STS{State: verdict.STSNone}
}
