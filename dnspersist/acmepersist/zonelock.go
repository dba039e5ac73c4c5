package acmepersist

import (
	"context"
	"strings"

	"github.com/libdns/libdns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/publish"
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

// inZone runs a call of the provider while nobody else changes the zone. Its time begins when
// it is its turn.
func (w *writing) inZone(ctx context.Context, zone string, call func(ctx context.Context) error) error {
	return w.store.Locked(ctx, "dns_persist_zone_"+w.store.Safe(strings.TrimSuffix(zone, ".")), nil, func() error {
		return publish.Call(ctx, w.Timeout, call)
	})
}

type zoneAppender struct{ w *writing }

// AppendRecords implements libdns.RecordAppender.
func (z zoneAppender) AppendRecords(ctx context.Context, zone string, records []libdns.Record) (added []libdns.Record, err error) {
	err = z.w.inZone(ctx, zone, func(ctx context.Context) error {
		added, err = z.w.Provider.AppendRecords(ctx, zone, records)
		return err
	})
	return added, err
}

type zoneDeleter struct {
	w       *writing
	deleter libdns.RecordDeleter
}

// DeleteRecords implements libdns.RecordDeleter.
func (z zoneDeleter) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) (gone []libdns.Record, err error) {
	err = z.w.inZone(ctx, zone, func(ctx context.Context) error {
		gone, err = z.deleter.DeleteRecords(ctx, zone, records)
		return err
	})
	return gone, err
}
