package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/libdns/libdns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
)

// lockingZone is the provider, which lets one change of a zone through at a time, in the
// whole cluster: some read a zone, change it, and write it back whole.
func (w *writing) lockingZone() libdns.RecordAppender {
	add := zoneAppender{w}
	if deleter, ok := w.Provider.(libdns.RecordDeleter); ok {
		return struct {
			zoneAppender
			zoneDeleter
		}{add, zoneDeleter{w, deleter}}
	}
	return add
}

// zoneCall is a call of one configuration's provider for a zone.
type zoneCall struct {
	by   *Publishing
	zone string
}

// runningOn are the calls that were given up and have not ended, each with what is closed when it
// does: a provider that writes a zone back whole would undo what a second one has changed meanwhile.
// Other nodes are not kept waiting: nobody can tell them when it ends.
var runningOn sync.Map

// inZone runs a call of the provider while nobody else changes the zone. Its time begins when
// it is its turn.
func (w *writing) inZone(ctx context.Context, zone string, call func(ctx context.Context) ([]libdns.Record, error)) (records []libdns.Record, err error) {
	zone = strings.TrimSuffix(zone, ".")
	key := zoneCall{w.Publishing, zone}
	err = w.store.Locked(ctx, "dns_persist_zone_"+w.store.Safe(zone), nil, func() error {
		if ended, runs := runningOn.Load(key); runs {
			select {
			case <-ended.(<-chan struct{}):
				runningOn.Delete(key)
			default:
				return fmt.Errorf("an earlier call of the provider for the zone %s was given up and has not ended; "+
					"it is not called again until then: look whether its API can be reached, and reload or restart Caddy", zone)
			}
		}
		records, err = publish.Call(ctx, w.Timeout, call)
		var runs *publish.RunsOnError
		if errors.As(err, &runs) {
			runningOn.Store(key, runs.Ended)
		}
		return err
	})
	return records, err
}

type zoneAppender struct{ w *writing }

// AppendRecords implements libdns.RecordAppender.
func (z zoneAppender) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return z.w.inZone(ctx, zone, func(ctx context.Context) ([]libdns.Record, error) {
		return z.w.Provider.AppendRecords(ctx, zone, records)
	})
}

type zoneDeleter struct {
	w       *writing
	deleter libdns.RecordDeleter
}

// DeleteRecords implements libdns.RecordDeleter.
func (z zoneDeleter) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return z.w.inZone(ctx, zone, func(ctx context.Context) ([]libdns.Record, error) {
		return z.deleter.DeleteRecords(ctx, zone, records)
	})
}
