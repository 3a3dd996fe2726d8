package kvsift

// #include "shim.h"
import "C"

import "unsafe"

// Policy decides, token by token, what attention needs.
type Policy struct {
	guard
	c         *C.go_policy
	config    Config
	predictor *Predictor
	selected  uint64 // selections made so far
}

// NewPolicy makes a policy in C memory of its own. It must be closed.
func NewPolicy(config *Config) (*Policy, error) { return NewPolicyWith(config, nil) }

// NewPolicyWith is NewPolicy with weights other than the built-in ones, which stay open until the policy is closed.
func NewPolicyWith(config *Config, predictor *Predictor) (*Policy, error) {
	if config == nil {
		return nil, invalid("config is nil")
	}
	weights, err := predictor.use()
	if err != nil {
		return nil, err
	}
	p := &Policy{c: C.go_policy_new(), config: *config, predictor: predictor}
	if p.c == nil {
		p.free()
		return nil, check(C.kvsift_status(ErrArenaTooSmall))
	}
	var s sentence
	if err := s.check(C.go_create(config.raw(), weights, s.raw(), p.c)); err != nil {
		p.free()
		return nil, err
	}
	return p, nil
}

// Close frees the policy. Closing twice, or nil, does nothing.
func (p *Policy) Close() error {
	if p == nil {
		return nil
	}
	if err := p.guard.enter(); err != nil {
		return err
	}
	defer p.leave()
	p.free()
	return nil
}

func (p *Policy) free() {
	if p.c == nil && p.predictor == nil {
		return
	}
	C.go_policy_free(p.c)
	p.c = nil
	p.predictor.unuse()
	p.predictor = nil
}

func (p *Policy) enter() error {
	if p == nil {
		return ErrClosed
	}
	if err := p.guard.enter(); err != nil {
		return err
	}
	if p.c == nil {
		p.leave()
		return ErrClosed
	}
	return nil
}

func (p *Policy) check(status C.kvsift_status) error {
	if Status(status) == ok {
		return nil
	}
	return failure(status, C.kvsift_last_error(p.c.handle))
}

// Config is what the policy was made with.
func (p *Policy) Config() Config {
	if p == nil {
		return Config{}
	}
	return p.config
}

// ObserveKeys hands over keys, and values where Info().Needs asks for them (else nil), of tokens first ... first+tokens-1.
// The views are indexed from 0.
func (p *Policy) ObserveKeys(layer uint32, heads Heads, first, tokens uint32, keys, values *View) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave()
	if keys == nil {
		return invalid("keys is nil")
	}
	e := extent{1, uint64(tokens), uint64(heads.end(p.config.KVHeads)), uint64(p.config.HeadDim)}
	if err := keys.check("keys", e); err != nil {
		return err
	}
	keys.shape(&p.c.keys)
	p.setHeads(heads)
	var rows *C.uint8_t
	var scales *C.float
	if values != nil {
		if err := values.check("values", e); err != nil {
			return err
		}
		values.shape(&p.c.values)
		rows, scales = values.rows(), values.rowScales()
	}
	return p.check(C.go_observe_keys(p.c, C.uint32_t(layer), C.uint32_t(first), C.uint32_t(tokens), keys.rows(),
		keys.rowScales(), rows, scales))
}

// Advance ends a step, after the last layer: tokens were added to the cache.
func (p *Policy) Advance(tokens uint32) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave()
	return p.check(C.go_advance(p.c, C.uint32_t(tokens)))
}

// PredictNext computes the AttentionPredictor's next scores of a layer ahead of its select.
func (p *Policy) PredictNext(layer uint32, heads Heads) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave()
	p.setHeads(heads)
	return p.check(C.go_predict_next(p.c, C.uint32_t(layer)))
}

// Reset goes back to the state after NewPolicy.
func (p *Policy) Reset() error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave()
	p.selected++
	return p.check(C.go_reset(p.c))
}

// Truncate forgets tokens from `tokens` on.
func (p *Policy) Truncate(tokens uint32) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave()
	p.selected++
	return p.check(C.go_truncate(p.c, C.uint32_t(tokens)))
}

// Fork makes an independent copy, which must be closed too.
func (p *Policy) Fork() (*Policy, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if _, err := p.predictor.use(); err != nil {
		return nil, err
	}
	copied := &Policy{c: C.go_policy_new(), config: p.config, predictor: p.predictor}
	if copied.c == nil {
		copied.free()
		return nil, check(C.kvsift_status(ErrArenaTooSmall))
	}
	if err := p.check(C.go_fork(p.c, copied.c)); err != nil {
		copied.free()
		return nil, err
	}
	return copied, nil
}

// SnapshotSize is how many bytes SnapshotSave writes now.
func (p *Policy) SnapshotSize() (uint64, error) {
	if err := p.enter(); err != nil {
		return 0, err
	}
	defer p.leave()
	err := p.check(C.go_snapshot_size(p.c))
	return uint64(p.c.count), err
}

// SnapshotSave writes the state to buffer and returns how many bytes that took.
func (p *Policy) SnapshotSave(buffer []byte) (int, error) {
	if err := p.enter(); err != nil {
		return 0, err
	}
	defer p.leave()
	if err := p.check(C.go_snapshot_save(p.c, start(buffer), C.uint64_t(len(buffer)))); err != nil {
		return 0, err
	}
	return int(p.c.count), nil
}

// SnapshotLoad reads the state of a policy of the same configuration. The bytes need not be trusted.
func (p *Policy) SnapshotLoad(buffer []byte) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave()
	p.selected++
	return p.check(C.go_snapshot_load(p.c, start(buffer), C.uint64_t(len(buffer))))
}

// Info is what the policy asks of its engine.
func (p *Policy) Info() (Info, error) {
	if err := p.enter(); err != nil {
		return Info{}, err
	}
	defer p.leave()
	err := p.check(C.go_info(p.c))
	return *(*Info)(unsafe.Pointer(&p.c.info)), err
}

// Stats are counters since NewPolicy or Reset.
func (p *Policy) Stats() (Stats, error) {
	if err := p.enter(); err != nil {
		return Stats{}, err
	}
	defer p.leave()
	err := p.check(C.go_stats(p.c))
	return *(*Stats)(unsafe.Pointer(&p.c.stats)), err
}

func (p *Policy) setHeads(heads Heads) {
	p.c.query.first_kv_head = C.uint32_t(heads.First)
	p.c.query.kv_heads = C.uint32_t(heads.Count)
}

// Checks a query and leaves its numbers where the shims look for them.
func (p *Policy) setQuery(query *Query) error {
	if query == nil {
		return invalid("query is nil")
	}
	rows := query.Rows
	if rows == 0 {
		rows = 1
	}
	group := p.config.QueryHeads / p.config.KVHeads
	heads := uint64(query.Heads.end(p.config.KVHeads)) * uint64(group)
	// Without a view: for methods whose select reads no query. The library refuses it elsewhere.
	if query.View.data != nil {
		if err := query.View.check("query", extent{1, uint64(rows), heads, uint64(p.config.HeadDim)}); err != nil {
			return err
		}
	}
	p.c.query.tokens = C.uint32_t(query.Tokens)
	p.c.query.rows = C.uint32_t(rows)
	p.setHeads(query.Heads)
	query.View.shape(&p.c.query.view)
	return nil
}

func start(buffer []byte) *C.uint8_t {
	if len(buffer) == 0 {
		return nil
	}
	return (*C.uint8_t)(unsafe.Pointer(&buffer[0]))
}
