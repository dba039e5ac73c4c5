package propagation

import (
	"context"
	"errors"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"
)

var ErrBadReply = errors.New("bad reply")

type NetExchanger struct{ UDPTimeout, TCPTimeout time.Duration }

func (NetExchanger) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	return nil, errors.New("not yet")
}

type Checker struct{ cfg Config }

func NewChecker(cfg Config) *Checker                                   { return &Checker{cfg} }
func (c *Checker) Look(ctx context.Context, t Target) Round            { return Round{} }
func (c *Checker) Glance(ctx context.Context, t Target, n int) Round   { return Round{} }
func (c *Checker) Check(ctx context.Context, t Target, g *Gate) Report { return Report{} }

type Gate struct{}

func NewGate(grace, settle time.Duration) *Gate { return &Gate{} }
func (g *Gate) Observe(r Round) Report          { return Report{} }
func (g *Gate) Report() Report                  { return Report{} }
func (r Report) Summary() string                { return "" }

type SchedulerConfig struct {
	MinInterval, MaxInterval  time.Duration
	Factor, Jitter            float64
	Workers                   int
	GlobalRate, PerServerRate float64
	Logger                    *zap.Logger
}
type Scheduler struct{}

func NewScheduler(SchedulerConfig) *Scheduler { return &Scheduler{} }
func (s *Scheduler) Close()                   {}
func (s *Scheduler) Watch(key string, c *Checker, t Target, g *Gate, notify func(Report)) (stop func()) {
	return func() {}
}
func (s *Scheduler) Poke(key string)                  {}
func (s *Scheduler) Report(key string) (Report, bool) { return Report{}, false }
func (s *Scheduler) Len() int                         { return 0 }
