package parking

import (
	"cmp"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// mostInFull is how many entries about one matter are logged in full in an hour. Ten thousand domains
// that come to the same point, as at a start, are a number.
const mostInFull = 20

// matter is what entries of the log are about that very many domains may have at once.
type matter struct {
	// reason is why domains wait; empty for the records that somebody has to publish.
	reason acmepersist.Reason
	// onDemand is true where strangers choose the domains: those are a number from the first one on.
	onDemand bool
}

// digest counts what was not logged in full about a matter. The number is logged soon, and then less and
// less often while more comes.
type digest struct {
	began time.Time // of the hour
	full  int       // entries in full since then
	count int       // others since the number was logged
	level zapcore.Level
	wait  time.Duration
	timer *time.Timer // nil while there is nothing to count
}

// logOneOfMany logs an entry about a matter in full, or counts it.
func (r *Registry) logOneOfMany(m matter, t Timing, level zapcore.Level, write func(*zap.Logger)) {
	d := r.digests[m]
	if d == nil {
		d = new(digest)
		r.digests[m] = d
	}
	span := cmp.Or(t.AnnounceAgain, announceAgain)
	if now := time.Now(); now.Sub(d.began) >= span {
		d.began, d.full, d.level = now, 0, zapcore.DebugLevel
	}
	switch {
	case m.onDemand:
		r.log(write) // at level DEBUG
	case d.full < mostInFull:
		d.full++
		r.log(write)
		return
	}
	d.count++
	d.level = max(d.level, level)
	if d.timer == nil && !r.closed {
		d.wait = cmp.Or(t.AnnounceWindow, announceWindow)
		d.timer = time.AfterFunc(d.wait, func() { d.logNumber(r, m, span) })
	}
}

// logNumber logs how many there were since the last time.
func (d *digest) logNumber(r *Registry, m matter, span time.Duration) {
	r.mu.Lock()
	defer r.unlock()
	n, level := d.count, d.level
	if d.count, d.timer = 0, nil; n == 0 || r.closed {
		return
	}
	d.wait = min(2*d.wait, span)
	d.timer = time.AfterFunc(d.wait, func() { d.logNumber(r, m, span) })
	reason, missing := zap.String("reason", string(m.reason)), 0
	if m.reason == "" {
		missing = r.announcements.missing(m.onDemand)
	}
	r.log(func(l *zap.Logger) {
		switch {
		case m.reason == "" && m.onDemand:
			l.Info("names that were asked for on demand wait for their owners to set records; which ones is logged at level DEBUG",
				zap.Int("records", n), zap.Int("missing", missing))
		case m.reason == "":
			l.Warn("more TXT records are needed than are logged one by one; to list them run caddy dns-persist records",
				zap.Int("records", n), zap.Int("missing", missing))
		case m.onDemand:
			l.Info("domains that were asked for on demand have to wait; which ones is logged at level DEBUG", reason, zap.Int("count", n))
		default:
			l.Log(level, "more domains have to wait than are logged one by one; to list them run caddy dns-persist status", reason, zap.Int("count", n))
		}
	})
}
