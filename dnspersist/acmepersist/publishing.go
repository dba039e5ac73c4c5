package acmepersist

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/libdns/libdns"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// What an issuer with a DNS provider does by itself.
const (
	// PublishNever leaves the provider to commands.
	PublishNever = "never"
	// PublishOnce writes a record that is missing, once for each name.
	PublishOnce = "once"
	// PublishKeep keeps records right as well: written again, renewed, followed.
	PublishKeep = "keep"
)

// Publishing writes records through the DNS provider of their zones.
type Publishing struct {
	// Provider is the zone's provider. Required. SetRecords is never used.
	Provider libdns.RecordAppender
	// Secrets are strings of its configuration, which no error and no log may show.
	Secrets []string
	// Mode is one of the Publish constants.
	Mode string
	// TTL is that of records at names that have none. Default: publish.DefaultTTL.
	TTL time.Duration
	// PersistFor is the lifetime of what is written; zero for no end.
	PersistFor time.Duration
	// AllowShadowing permits writing below a wildcard record that answers for the name.
	AllowShadowing bool
	// Wait and Interval are those of publish.Writer.
	Wait, Interval time.Duration
	// Timeout is how long one call of the provider may take. Default: publish.DefaultTimeout.
	Timeout time.Duration
	// Retry is how long after a first failure it is tried again, twice as long after each
	// further one. Default: 1 minute.
	Retry time.Duration
	// RetireAfter is how long no node has wanted a value of ours before it is removed, where
	// another one is in use. Default: 7 days.
	RetireAfter time.Duration
}

// Published is what a write has done.
type Published struct {
	// Name and Zone are where.
	Name, Zone string
	// Value is what was added; empty if nothing had to be.
	Value string
	// Restored are foreign values that the provider had lost, and that were put back.
	Restored []string
	// Again says that the value had been written before and was gone.
	Again bool
}

// WrittenBeforeError says that a record was written once and is gone: publish once does not
// write it again.
type WrittenBeforeError struct {
	Name string
	At   time.Time
}

func (e *WrittenBeforeError) Error() string {
	return fmt.Sprintf("the record at %s was written on %s and is gone or was changed since: publish once never writes a name twice; publish it by hand, or use publish keep",
		e.Name, e.At.UTC().Format(time.RFC3339))
}

// ShadowingError says that a record at the validation name would take the name from a
// wildcard record that answers for it today.
type ShadowingError struct {
	Name string
	Text string
}

func (e *ShadowingError) Error() string {
	return fmt.Sprintf("nothing was written at %s: %s; or use the wildcard's certificate for it, or allow it with allow_shadowing", e.Name, e.Text)
}

// writing changes one name.
type writing struct {
	*session
	*Publishing
	checker *propagation.Checker
	target  propagation.Target
}

// writing prepares a change of the target's name.
func (s *session) writing(p *Publishing, checker *propagation.Checker, t propagation.Target) *writing {
	return &writing{session: s, Publishing: p, checker: checker, target: t}
}

// locked runs fn while no other node and no command changes the name.
func (w *writing) locked(ctx context.Context, fn func() error) error {
	return w.store.Locked(ctx, "dns_persist_publish_"+w.store.Safe(w.target.Name), nil, fn)
}

// put adds the value that decide finds missing in what stands, empty for none. The account
// has been confirmed by the CA.
func (w *writing) put(ctx context.Context, once bool, decide func(values []string) string) (Published, error) {
	done := Published{Name: w.target.Name}
	err := w.locked(ctx, func() error {
		stands, err := w.read(ctx, w.target.Name)
		if err != nil {
			return w.clean(fmt.Errorf("what stands at %s is not known, so nothing was written: %w", w.target.Name, err))
		}
		value := decide(stands.Values())
		if value == "" {
			return nil
		}
		entries, err := w.iss.Inventory().Known(ctx, w.target.Name)
		if err != nil {
			return err
		}
		// what was begun and may still come is not followed by the same with another end
		value = w.begun(value, entries, time.Now())
		written := slices.IndexFunc(entries, func(e publish.Entry) bool { return !e.WrittenAt.IsZero() })
		if once && written >= 0 {
			return &WrittenBeforeError{w.target.Name, entries[written].WrittenAt}
		}
		if found, ok := publish.Altered(value, stands.Values()); ok && slices.ContainsFunc(entries, func(e publish.Entry) bool { return e.Value == value }) {
			// it was written before and came out as something else: once more would pile up
			return &publish.AlteredError{Name: w.target.Name, Wanted: value, Found: found}
		}
		if err := w.shadows(ctx, len(stands.Values()) > 0); err != nil {
			return err
		}
		return w.add(ctx, stands, value, entries, &done)
	})
	return done, err
}

// begun is the value of an entry that was not seen to stand yet, if it differs from the given
// one in nothing but an end that is still far.
func (w *writing) begun(value string, entries []publish.Entry, now time.Time) string {
	want, err := record.Parse(value)
	if err != nil || want.PersistUntil.IsZero() {
		return value
	}
	for _, e := range entries {
		if v, err := record.Parse(e.Value); err == nil && e.WrittenAt.IsZero() && v.PersistUntil.Sub(now) > w.PersistFor/3*2 {
			if v.PersistUntil = want.PersistUntil; v.String() == want.String() {
				return e.Value
			}
		}
	}
	return value
}

// shadows is an error if the first value at a name would hide a wildcard record from it.
func (w *writing) shadows(ctx context.Context, exists bool) error {
	if exists || w.AllowShadowing {
		return nil
	}
	_, found := w.checker.Diagnose(ctx, w.target)
	for _, d := range found {
		if d.Code == propagation.CodeWildcardBreaks {
			return &ShadowingError{w.target.Name, d.Text}
		}
	}
	return nil
}

// add notes a value, writes it, and notes that it stands.
func (w *writing) add(ctx context.Context, stands publish.Standing, value string, entries []publish.Entry, done *Published) error {
	now := time.Now().UTC()
	entry := publish.Entry{
		Name: w.target.Name, Zone: stands.Zone, Value: value, CA: w.iss.CA,
		Account: w.account.Location, Thumbprint: w.thumbprint, At: now, WantedAt: now,
		OnDemand: w.iss.OnDemand,
	}
	if v, err := record.Parse(value); err == nil {
		entry.EndsAt = v.PersistUntil
	}
	var left []string
	var since time.Time
	var back []string
	if known := slices.IndexFunc(entries, func(e publish.Entry) bool { return e.Value == value }); known >= 0 {
		// what an earlier try has taken away goes with it: the new entry replaces the old one
		old := entries[known]
		entry.OnDemand = entry.OnDemand && old.OnDemand
		done.Again, left, since, entry.PutBack = !old.WrittenAt.IsZero(), leftBy(old, now), old.Begun(), old.PutBack
	}
	if back = missing(left, stands.Values()); len(back) > 0 {
		entry.PutBack++
	}
	writer := w.writer()
	writer.Note = func(ctx context.Context, beside []string) error {
		if entry.Beside = join(left, beside); len(back) > 0 {
			entry.At = since // it is not put back for longer because it is tried again
		}
		return w.iss.Inventory().Note(ctx, entry)
	}
	added, err := writer.Add(ctx, w.target.Name, join([]string{value}, back)...)
	done.Zone, done.Restored = stands.Zone, join(added.Restored, missing(added.Values, []string{value}))
	if err != nil {
		return err
	}
	if !slices.Contains(added.Values, value) {
		// somebody else wrote the same meanwhile: what is not ours is never removed. What is
		// noted of an earlier try of ours is ended by endWrites
		return nil
	}
	done.Value = value
	// the same as above for what perhaps not all servers show
	entry.WrittenAt, entry.Beside = time.Now().UTC(), missing(left, stands.Everywhere(), added.Values)
	if len(entry.Beside) == 0 {
		entry.PutBack = 0
	}
	return w.iss.Inventory().Note(ctx, entry)
}

func (w *writing) writer() *publish.Writer {
	return &publish.Writer{
		Provider: w.lockingZone(), Read: w.read, TTL: w.TTL, Wait: w.Wait, Interval: w.Interval, Timeout: w.Timeout,
		Secrets: w.Secrets, Logger: w.logger,
	}
}

// clean takes the provider's secrets out of an error.
func (w *writing) clean(err error) error { return publish.RedactError(err, w.Secrets) }

func (w *writing) read(ctx context.Context, name string) (publish.Standing, error) {
	return standing(ctx, w.checker, w.target, name)
}

// say logs what was written.
func (w *writing) say(done Published) {
	fields := []zap.Field{
		zap.String("name", done.Name), zap.String("zone", done.Zone), zap.String("value", done.Value),
		zap.String("ca", w.iss.CA), zap.String("account", w.account.Location),
	}
	for _, v := range done.Restored {
		w.logger.Warn("the provider had replaced a value that is not ours; it is published again", zap.String("name", done.Name), zap.String("value", foreign.Text(v)))
	}
	switch {
	case done.Value == "":
	case done.Again:
		w.logger.Warn("a record of ours had been removed from the zone; it was written again", fields...)
	default:
		w.logger.Info("published the TXT record", fields...)
	}
}
