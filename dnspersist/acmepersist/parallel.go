package acmepersist

import (
	"context"
	"sync"
	"sync/atomic"
)

// storageReaders is how many names are read from storage at once, which may be far away.
const storageReaders = 16

// inParallel calls fn for each number below n, some at once, and returns the error of the
// lowest number that has one. After an error no others are begun.
func inParallel(ctx context.Context, n int, fn func(i int) error) error {
	var (
		next, failed atomic.Int64
		wg           sync.WaitGroup
	)
	errs := make([]error, n)
	for range min(storageReaders, n) {
		wg.Go(func() {
			for failed.Load() == 0 && ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if errs[i] = fn(i); errs[i] != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}
