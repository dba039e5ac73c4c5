package dnspersist

import (
	"context"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// CertMagic begins up to 1,000 jobs at once, and each of them tests the storage, takes a lock there and makes a key
// before it comes to an issuer. All of a fleet then move in step: the first has its certificate when the last is
// nearly done, and a file system bears a thousand threads that flush files worse than a few. CertMagic has no
// setting for it. Its SubjectTransformer is the one hook that a job passes before all this.

const (
	// startsAtOnce is how many jobs are in the part that needs processor and disk.
	startsAtOnce = 16
	// startPatience is how long one of them counts. What takes longer waits, for a lock or for storage that is far
	// away, and keeps nobody from starting.
	startPatience = 50 * time.Millisecond
)

// starts has the jobs of CertMagic start one after another, those first that somebody waits for. It outlives
// configurations.
type starts struct {
	mu sync.Mutex
	// running are the jobs that count, by domain.
	running map[string]*time.Timer
	// queues are the jobs that wait, the preferred ones first.
	queues [2][]*start
}

func newStarts() starts { return starts{running: make(map[string]*time.Timer)} }

// start is a job that waits for its turn.
type start struct {
	domain string
	turn   chan struct{} // closed when it has come
}

// enter waits until a job may start, or its context ends. A job of a domain that has started passes: CertMagic
// comes by twice where a renewal becomes an obtain.
func (s *starts) enter(ctx context.Context, domain string, isPreferred bool) {
	s.mu.Lock()
	if s.running[domain] != nil {
		s.mu.Unlock()
		return
	}
	w := &start{domain, make(chan struct{})}
	queue := &s.queues[1]
	if isPreferred {
		queue = &s.queues[0]
	}
	*queue = append(*queue, w)
	s.next()
	s.mu.Unlock()
	select {
	case <-w.turn:
	case <-ctx.Done():
		s.mu.Lock()
		*queue = slices.DeleteFunc(*queue, func(other *start) bool { return other == w })
		s.mu.Unlock()
		s.leave(domain)
	}
}

// leave is for a job that is through: it waits for DNS or the CA now, or has ended.
func (s *starts) leave(domain string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if timer := s.running[domain]; timer != nil {
		timer.Stop()
		delete(s.running, domain)
		s.next()
	}
}

// next has as many start as may.
func (s *starts) next() {
	for i := range s.queues {
		for len(s.queues[i]) > 0 && len(s.running) < startsAtOnce {
			w := s.queues[i][0]
			s.queues[i] = s.queues[i][1:]
			if s.running[w.domain] == nil {
				s.running[w.domain] = time.AfterFunc(startPatience, func() { s.leave(w.domain) })
			}
			close(w.turn)
		}
	}
}

// pace has the jobs of a CertMagic configuration start one after another.
func (s *starts) pace(cfg *certmagic.Config) {
	transform := cfg.SubjectTransformer
	cfg.SubjectTransformer = func(ctx context.Context, domain string) string {
		// a visitor waits for nobody, nor does whoever only loads a certificate
		isVisit := ctx.Value(certmagic.ClientHelloInfoCtxKey) != nil
		if job := jobOf(); job != "" && !isVisit {
			s.enter(ctx, domain, job == "renewCert" || acmepersist.IsInBackground(ctx))
		}
		if transform == nil {
			return domain
		}
		return transform(ctx, domain)
	}
}

// jobOf is the function of CertMagic's that obtains or renews, if it is what has the subject transformed; else
// empty: the same hook is called while a configuration is loaded, where nobody may wait.
func jobOf() string {
	var callers [4]uintptr
	frames := goruntime.CallersFrames(callers[:goruntime.Callers(2, callers[:])])
	for {
		f, more := frames.Next()
		_, name, _ := strings.Cut(f.Function, "/certmagic.(*Config).")
		if name == "obtainCert" || name == "renewCert" {
			return name
		}
		if !more {
			return ""
		}
	}
}
