package kvsift

import "sync/atomic"

// A handle belongs to one goroutine at a time. A second one gets an error rather than a data race in C, which no detector
// sees.
type guard struct{ busy int32 }

func (g *guard) enter() error {
	if !atomic.CompareAndSwapInt32(&g.busy, 0, 1) {
		return ErrBusy
	}
	return nil
}

func (g *guard) leave() { atomic.StoreInt32(&g.busy, 0) }
