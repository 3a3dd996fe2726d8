package kvsift

// #include "shim.h"
import "C"

import "sync/atomic"

// Predictor is weights of the AttentionPredictor, read-only: policies of several goroutines may share them.
type Predictor struct {
	guard
	c     *C.go_predictor
	users int32
}

// LoadPredictor reads weights as tools/convert_predictor.py writes them. They must be closed, after the policies that use them.
func LoadPredictor(data []byte) (*Predictor, error) {
	var s sentence
	p := &Predictor{}
	if err := s.check(C.go_predictor_load(start(data), C.uint64_t(len(data)), s.raw(), &p.c)); err != nil {
		return nil, err
	}
	return p, nil
}

// Close frees the weights; ErrInUse where a policy still uses them.
func (p *Predictor) Close() error {
	if p == nil {
		return nil
	}
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave()
	if atomic.LoadInt32(&p.users) != 0 {
		return ErrInUse
	}
	C.go_predictor_free(p.c)
	p.c = nil
	return nil
}

func (p *Predictor) use() (*C.go_predictor, error) {
	if p == nil {
		return nil, nil
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if p.c == nil {
		return nil, ErrClosed
	}
	atomic.AddInt32(&p.users, 1)
	return p.c, nil
}

func (p *Predictor) unuse() {
	if p != nil {
		atomic.AddInt32(&p.users, -1)
	}
}
