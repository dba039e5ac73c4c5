package dnspersist

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

const (
	// diagnoseAfter is how long a record is missing before it is looked for in wrong places: it
	// may have been published there.
	diagnoseAfter = 10 * time.Minute
	// diagnoseEvery is the time between two diagnoses, of some 25 questions each. Names that
	// began to wait together also come to this together.
	diagnoseEvery = time.Second
)

// diagnosis is a record that is to be looked for where it is put by mistake.
type diagnosis struct {
	record acmepersist.Record
	// announce says that the record is to be announced again after that.
	announce bool
}

// diagnose puts a diagnosis behind those that wait; it is called under the lock. Nothing runs
// while none does.
func (a *announcer) diagnose(d diagnosis) {
	if slices.Contains(a.diagnosing, d) {
		return
	}
	a.diagnosing = append(a.diagnosing, d)
	if !a.isDiagnosing {
		a.isDiagnosing = true
		a.working.Go(a.diagnoseAll)
	}
}

// diagnoseAll goes on until no diagnosis waits.
func (a *announcer) diagnoseAll() {
	for {
		a.mu.Lock()
		if a.closed || len(a.diagnosing) == 0 {
			a.diagnosing, a.isDiagnosing = nil, false
			a.mu.Unlock()
			return
		}
		next := a.diagnosing[0]
		a.diagnosing = a.diagnosing[1:]
		w := a.wanted[next.record]
		if w == nil {
			a.mu.Unlock()
			continue
		}
		checker, target := w.checker, w.target
		a.mu.Unlock()
		if checker == nil {
			a.diagnosed(next, nil)
			continue
		}
		_, found := checker.Diagnose(a.ctx, target)
		a.diagnosed(next, misplaced(found))
		pause := time.NewTimer(diagnoseEvery)
		select {
		case <-pause.C:
		case <-a.ctx.Done():
		}
		pause.Stop()
	}
}

// misplaced lists where the record was found.
func misplaced(found []propagation.Diagnostic) []string {
	var all []string
	for _, d := range found {
		if d.Code == propagation.CodeWrongName {
			all = append(all, d.Text)
		}
	}
	slices.Sort(all)
	return all
}

// diagnosed logs what a diagnosis has found, once, and the announcement behind it.
func (a *announcer) diagnosed(d diagnosis, places []string) {
	a.mu.Lock()
	w := a.wanted[d.record]
	if w == nil || a.closed {
		a.mu.Unlock()
		return
	}
	isNew := len(places) > 0 && !slices.Equal(places, w.misplaced)
	w.misplaced = places
	entry := w.clone()
	a.mu.Unlock()
	logger := a.logger()
	switch {
	case d.announce:
		entry.write(logger, d.record)
	case isNew:
		logger.Warn("the TXT record was found at another name than the validation name",
			zap.Strings("identifiers", entry.identifiers), zap.String("name", d.record.Name), zap.Strings("misplaced", places))
	}
}
