package ca

import (
	"context"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

const (
	// leaseEvery is how often the lease of CertMagic's lock is extended while an
	// attempt waits, leaseFor by how much: on a first attempt it is only a minute long.
	leaseEvery = 20 * time.Second
	leaseFor   = 2 * time.Minute
)

// KeepLock extends the lease of the lock that CertMagic holds for a name while it
// waits for us, where the storage gives out leases: else another node would begin the
// same work.
func (c *Client) KeepLock(ctx context.Context, name string) {
	renewer, ok := c.server.Store.Storage.(certmagic.LockLeaseRenewer)
	if !ok || time.Since(c.leased) < leaseEvery {
		return
	}
	c.leased = time.Now()
	if err := renewer.RenewLockLease(ctx, "issue_cert_"+name, leaseFor); err != nil {
		c.logger.Warn("extending the lock's lease failed; another node may begin the same work",
			zap.String("identifier", name), zap.Error(err))
	}
}
