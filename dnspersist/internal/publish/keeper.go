// Package publish puts a record into a zone through a libdns provider and takes it out again, and nobody
// loses a value by it.
//
// Other CAs, other accounts and other software have their values at the same names, and some providers
// replace a whole RRset where they are asked to add to it, or delete all and fail before they create it anew. So
// a Keeper only ever appends, reads the authoritative servers before and after, and puts back what is missing
// then. What it is about to change, and what is published beside that, it notes in the Inventory before: a
// process that is killed in between leaves to the next one what is to be put back. Removed is only what the
// Inventory lists, exactly equal and for the same account. Without this a site that publishes its record
// would cost somebody else theirs, and nobody would know.
//
// One change of a place, and one call for a zone, is made at a time in the whole cluster. A provider that fails, or
// wants to be asked less often, is left alone for a while (Process), also over reloads.
//
// Whether a record is to be written is decided elsewhere: this package knows nothing of ACME and of Caddy.
package publish

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/libdns/libdns"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// What an issuer with a DNS provider does by itself.
const (
	// Never leaves the provider to commands.
	Never = "never"
	// Once writes a record that is missing, once for each name.
	Once = "once"
	// Keep keeps records right as well: written again, renewed, followed.
	Keep = "keep"
)

// Options are a DNS provider, and how records are written with it.
type Options struct {
	// Provider is the zone's provider. Required. SetRecords is never used.
	Provider libdns.RecordAppender
	// Account distinguishes the provider and its credential from others, also over reloads: what fails with
	// one of them is no reason to leave another alone.
	Account string
	// Process is what the process knows of its providers. Default: what an Issuer learns by itself.
	Process *Process
	// Secrets are strings of the provider's configuration, which no error and no log may show.
	Secrets []string
	// Mode is Never, Once or Keep.
	Mode string
	// TTL is that of records at names that have none. Default: DefaultTTL.
	TTL time.Duration
	// PersistFor is the lifetime of what is written; zero for no end.
	PersistFor time.Duration
	// AllowShadowing permits writing below a wildcard record that answers for the name.
	AllowShadowing bool
	// Wait is how long a write may take to show on the authoritative servers, Interval the time between
	// two looks at them. Defaults: DefaultWait, and 2 seconds.
	Wait, Interval time.Duration
	// DryRun has Put find out what it would write, and write nothing.
	DryRun bool
	// Timeout is how long one call of the provider may take. Default: 2 minutes.
	Timeout time.Duration
	// Retry is how long after a first failure a name is tried again, twice as long after each
	// further one. Default: 1 minute.
	Retry time.Duration
	// RetireAfter is how long no node has wanted a value of ours before it is removed, where
	// another one is in use. Default: 7 days, for nodes with different configurations must not
	// take each other's values away in turn.
	RetireAfter time.Duration
}

// Lasting gives a value the end that PersistFor asks for.
func (o *Options) Lasting(value string, now time.Time) string {
	v, err := record.Parse(value)
	if err != nil || o.PersistFor <= 0 {
		return value
	}
	v.PersistUntil = now.Add(o.PersistFor).Truncate(time.Second)
	return v.String()
}

// Identity is for whom values are written.
type Identity struct {
	// CA and Account are URLs, Thumbprint is that of the account's key, and Earlier are those of
	// keys that it had before.
	CA, Account, Thumbprint string
	Earlier                 []string
}

// Keeper writes values into zones and removes them, and knows in its Inventory which are ours.
type Keeper struct {
	// Options are those of the provider. Where nothing is written they may be nil.
	Options *Options
	// Store keeps the inventory, and has the locks that keep other nodes and commands away.
	Store state.Store
	// Checker reads the authoritative servers.
	Checker *propagation.Checker
	// Process paces the provider. Required.
	Process *Process
	Logger  *zap.Logger

	identity Identity
}

// For returns the Keeper of an identity's values.
func (k Keeper) For(id Identity) *Keeper {
	k.identity = id
	return &k
}

// Owns reports whether an entry was written for the identity: of others nobody can be sure that no
// Caddy needs them.
func (k *Keeper) Owns(e Entry) bool {
	return e.Account == k.identity.Account && (e.Thumbprint == k.identity.Thumbprint || slices.Contains(k.identity.Earlier, e.Thumbprint))
}

// Inventory is what was written for the CA.
func (k *Keeper) Inventory() *Inventory { return &Inventory{Store: k.Store} }

// Write is a value for a place.
type Write struct {
	// At is the place: the validation name, or where it is delegated to.
	At propagation.Target
	// Value returns what to add to the published values; empty if they do without it.
	Value func(published []string) (string, error)
	// Once refuses a second write at the place.
	Once bool
	// OnDemand is true if nothing but a name of on-demand TLS wants it. Bounds are how many of these
	// are written; nil for no bound.
	OnDemand bool
	Bounds   *Bounds
	// Handshake is true if a TLS handshake waits for the write.
	Handshake bool
	// Done is called by Try with what was published, if anything was. May be nil.
	Done func(Result)
}

// Result is what a write has done.
type Result struct {
	// Name and Zone are where.
	Name, Zone string
	// Value is what was added, with the TTL of its name; empty if nothing had to be.
	Value string
	TTL   time.Duration
	// Restored are foreign values that the provider had lost, and that were put back.
	Restored []string
	// Again is true if the value had been written before and was gone.
	Again bool
}

// WrittenBeforeError means that a record was written once and is gone: publish once does not
// write it again.
type WrittenBeforeError struct {
	Name string
	At   time.Time
}

func (e *WrittenBeforeError) Error() string {
	return fmt.Sprintf("the record at %s was written on %s and is gone or was changed since: publish once never writes a name twice; publish it by hand, or use publish keep",
		e.Name, e.At.UTC().Format(time.RFC3339))
}

// ShadowingError means that a record at the validation name would take the name from a
// wildcard record that answers for it today.
type ShadowingError struct {
	Name string
	Text string
}

func (e *ShadowingError) Error() string {
	return fmt.Sprintf("nothing was written at %s: %s; or use the wildcard's certificate for it, or allow it with allow_shadowing", e.Name, e.Text)
}

// Put adds the value that is missing at a place, if one is, whatever else fails with the provider. The
// CA has confirmed the account before.
func (k *Keeper) Put(ctx context.Context, w Write) (Result, error) {
	c := k.change(w.At)
	done := Result{Name: w.At.Name}
	if k.Options.DryRun {
		err := c.put(ctx, w, &done)
		return done, err
	}
	err := c.locked(ctx, func() error { return c.put(ctx, w, &done) })
	return done, err
}

// change is a change of one place.
type change struct {
	*Keeper
	at propagation.Target
}

func (k *Keeper) change(at propagation.Target) *change { return &change{k, at} }

// locked runs fn while no other node and no command changes the place.
func (c *change) locked(ctx context.Context, fn func() error) error {
	return c.Store.Locked(ctx, "dns_persist_publish_"+state.Safe(c.at.Name), nil, fn)
}

func (c *change) put(ctx context.Context, w Write, done *Result) error {
	before, err := c.read(ctx, c.at.Name)
	if err != nil {
		return c.Options.redact(fmt.Errorf("the values published at %s are not known, so nothing was written: %w", c.at.Name, err))
	}
	published := before.values()
	value, err := w.Value(published)
	if err != nil || value == "" {
		return err
	}
	entries, err := c.Inventory().known(ctx, c.at.Name)
	if err != nil {
		return err
	}
	// what was begun and may still come is not followed by the same with another end
	value = c.begun(value, entries, time.Now())
	written := slices.IndexFunc(entries, func(e Entry) bool { return !e.WrittenAt.IsZero() })
	if w.Once && written >= 0 {
		return &WrittenBeforeError{c.at.Name, entries[written].WrittenAt}
	}
	if found, ok := alteredValue(value, published); ok && slices.ContainsFunc(entries, func(e Entry) bool { return e.Value == value }) {
		// it was written before and came out as something else: once more would pile up
		return &alteredError{c.at.Name, value, found}
	}
	if err := c.shadows(ctx, len(published) > 0); err != nil {
		return err
	}
	done.TTL = c.Options.ttlAt(before)
	if c.Options.DryRun {
		done.Value = value
		return nil
	}
	entry, old := c.entryFor(value, entries, before.zone)
	entry.OnDemand = w.OnDemand && (old == nil || old.OnDemand)
	return c.add(ctx, before, entry, old, done)
}

// begun is the value of an entry that was not seen on the servers yet, if it differs from the given
// one in nothing but an end that is still far.
func (c *change) begun(value string, entries []Entry, now time.Time) string {
	want, err := record.Parse(value)
	if err != nil || want.PersistUntil.IsZero() {
		return value
	}
	for _, e := range entries {
		if v, err := record.Parse(e.Value); err == nil && e.WrittenAt.IsZero() && v.PersistUntil.Sub(now) > c.Options.PersistFor/3*2 {
			if v.PersistUntil = want.PersistUntil; v.String() == want.String() {
				return e.Value
			}
		}
	}
	return value
}

// entryFor is the entry of a value that is about to be written, and the old one that it replaces, nil if
// there is none.
func (c *change) entryFor(value string, entries []Entry, zone string) (entry Entry, old *Entry) {
	now := time.Now().UTC()
	entry = Entry{
		Name: c.at.Name, Zone: zone, Value: value, CA: c.identity.CA,
		Account: c.identity.Account, Thumbprint: c.identity.Thumbprint, At: now, WantedAt: now,
	}
	if v, err := record.Parse(value); err == nil {
		entry.EndsAt = v.PersistUntil
	}
	if i := slices.IndexFunc(entries, func(e Entry) bool { return e.Value == value }); i >= 0 {
		old = &entries[i]
		entry.PutBack = old.PutBack
	}
	return entry, old
}

// add notes an entry, writes its value, and notes that the servers show it.
func (c *change) add(ctx context.Context, before published, entry Entry, old *Entry, done *Result) error {
	var left []string // by an earlier try, which has taken it away: it is written with the value
	since := entry.At
	if old != nil {
		done.Again, left, since = !old.WrittenAt.IsZero(), leftBy(*old, entry.At), old.begun()
	}
	back := without(left, before.values())
	if len(back) > 0 {
		entry.PutBack++
		entry.At = since // it is not put back for longer because it is tried again
	}
	writer := c.writer()
	writer.note = func(ctx context.Context, beside []string) error {
		entry.Beside = join(left, beside)
		return c.Inventory().Note(ctx, entry)
	}
	added, err := writer.add(ctx, c.at.Name, join([]string{entry.Value}, back)...)
	done.Zone, done.Restored = before.zone, join(added.restored, without(added.values, []string{entry.Value}))
	if err != nil {
		return err
	}
	if !slices.Contains(added.values, entry.Value) {
		// somebody else wrote the same meanwhile: what is not ours is never removed. What is
		// noted of an earlier try of ours is ended by Finish
		return nil
	}
	done.Value = entry.Value
	// the same as above for what perhaps not all servers show
	entry.WrittenAt, entry.Beside = time.Now().UTC(), without(left, slices.Concat(before.everywhere(), added.values))
	if len(entry.Beside) == 0 {
		entry.PutBack = 0
	}
	return c.Inventory().Note(ctx, entry)
}

func (c *change) writer() *writer {
	return &writer{
		Options: c.Options, read: c.read, inZone: c.inZone, logger: c.Logger,
		note: func(context.Context, []string) error { return nil },
	}
}

// log reports what was written.
func (k *Keeper) log(done Result) {
	for _, v := range done.Restored {
		k.Logger.Warn("the provider had replaced a value that is not ours; it is published again", zap.String("name", done.Name), zap.String("value", foreign.Text(v)))
	}
	if done.Value == "" {
		return
	}
	fields := []zap.Field{
		zap.String("name", done.Name), zap.String("zone", done.Zone), zap.String("value", done.Value),
		zap.String("ca", k.identity.CA), zap.String("account", k.identity.Account),
	}
	if done.Again {
		k.Logger.Warn("a record of ours had been removed from the zone; it was written again", fields...)
	} else {
		k.Logger.Info("published the TXT record", fields...)
	}
}

// join is both, each value once.
func join(a, b []string) []string { return append(slices.Clone(a), without(b, a)...) }
