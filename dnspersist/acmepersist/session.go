package acmepersist

import (
	"context"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// requestTimeout bounds one HTTP request, reading the answer included.
const requestTimeout = 30 * time.Second

// session is one operation with a CA: a client of its own, so that the wire knows
// whose answers it sees, over the issuer's shared connections.
type session struct {
	iss       *Issuer
	store     store
	directory *directory
	wire      *wire
	client    *acme.Client
	account   acme.Account
	// thumbprint is that of the account's key, earlierThumbprints of former keys.
	thumbprint         string
	earlierThumbprints []string
	logger             *zap.Logger
	// leased is when the lock's lease was last extended.
	leased time.Time
	// rolledAt is when the account's key was last changed.
	rolledAt time.Time
	// persistUntil is until when the steps of an attempt that has a certificate to lose are
	// repeated, whatever goes wrong; zero before.
	persistUntil time.Time
	// notAfter is the end of the certificate that the attempt is to renew, zero for a first one.
	notAfter time.Time
	// requestKey is that of the attempt's CSR, see keyOf.
	requestKey string
	// lockName is the name under which CertMagic holds its lock then.
	lockName string
}

// open fetches the directory if need be and makes a client. The account is not
// bound yet.
func (iss *Issuer) open(ctx context.Context) (*session, error) {
	dir, err := iss.dirs.get(ctx, iss.CA, iss.transport(), iss.userAgent())
	if err != nil {
		return nil, err
	}
	return iss.sessionWith(dir), nil
}

// sessionWith makes a client for a directory that is there. Its account is not known:
// a job that holds the account's lock uses it, and names the account with each request.
func (iss *Issuer) sessionWith(dir *directory) *session {
	w := &wire{base: iss.transport(), directory: dir}
	return &session{
		iss:       iss,
		store:     iss.store(),
		directory: dir,
		wire:      w,
		logger:    iss.logger(),
		leased:    time.Now(),
		client: &acme.Client{
			Directory: dir.URL + "#" + dir.fragment(),
			HTTPClient: &http.Client{
				Transport: w,
				Timeout:   requestTimeout,
				// an account URL that redirects is somebody else's (-02 section 9.4)
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			},
			UserAgent: iss.userAgent(),
			// the intervals are ours, see poll
			PollTimeout: time.Nanosecond,
		},
	}
}

// offline is a session that reads and writes storage only.
func (iss *Issuer) offline() *session {
	return &session{iss: iss, store: iss.store(), logger: iss.logger(), leased: time.Now()}
}

// openBound is open with the bound account.
func (iss *Issuer) openBound(ctx context.Context) (*session, error) {
	s, err := iss.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.bind(ctx); err != nil {
		return nil, err
	}
	return s, nil
}
