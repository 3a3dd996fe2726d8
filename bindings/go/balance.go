package kvsift

// #include "shim_balance.h"
import "C"

import "unsafe"

// NewBalanceConfig is a configuration with the defaults of a form (BalancePractical and so on). HeadDim must be set.
func NewBalanceConfig(form uint32) (BalanceConfig, error) {
	var config BalanceConfig
	config.structSize = uint32(unsafe.Sizeof(config))
	err := check(C.kvsift_balance_config_init(config.raw(), C.uint32_t(form)))
	return config, err
}

func (c *BalanceConfig) raw() *C.kvsift_balance_config {
	return (*C.kvsift_balance_config)(unsafe.Pointer(c))
}

// Weighted is a weighted set of tokens.
type Weighted struct {
	Index  []uint32
	Weight []float32
}

// Balancer compresses caches by BalanceKV, with scratch in C memory. It must be closed.
type Balancer struct {
	guard
	c      *C.go_balance
	config BalanceConfig
}

// NewBalancer makes one for up to `tokens` tokens a call.
func NewBalancer(config *BalanceConfig, tokens uint32) (*Balancer, error) {
	if config == nil {
		return nil, invalid("config is nil")
	}
	var s sentence
	b := &Balancer{config: *config}
	if err := s.check(C.go_balance_new(config.raw(), C.uint32_t(tokens), s.raw(), &b.c)); err != nil {
		return nil, err
	}
	return b, nil
}

// Close frees the scratch.
func (b *Balancer) Close() error {
	if b == nil {
		return nil
	}
	if err := b.guard.enter(); err != nil {
		return err
	}
	defer b.leave()
	C.go_balance_free(b.c)
	b.c = nil
	return nil
}

func (b *Balancer) enter() error {
	if b == nil {
		return ErrClosed
	}
	if err := b.guard.enter(); err != nil {
		return err
	}
	if b.c == nil {
		b.leave()
		return ErrClosed
	}
	return nil
}

func (b *Balancer) check(status C.kvsift_status) error {
	if Status(status) == ok {
		return nil
	}
	return failure(status, &b.c.error.message[0])
}

func (b *Balancer) setCache(cache *Cache, head uint32) error {
	if cache == nil || cache.store != nil || head == ^uint32(0) {
		return invalid("cache is nil or a store's, or head is %d", head)
	}
	if err := cache.check(head+1, b.config.HeadDim); err != nil {
		return err
	}
	cache.shape(&b.c.cache)
	return nil
}

// Given is what a caller may hand to Compress beside the cache.
type Given struct {
	Uniforms   []float32 // numbers in [0, 1) to use instead of the library's
	Importance []float32 // graded form: by token of the cache (Importance fills it)
}

// Compress chooses tokens that stand for `tokens` of a KV head, and returns how many there are; index and weight receive
// them, ascending. given may be nil.
func (b *Balancer) Compress(cache *Cache, head uint32, tokens Range, given *Given, index []uint32,
	weight []float32) (int, error) {
	if err := b.enter(); err != nil {
		return 0, err
	}
	defer b.leave()
	if err := b.setCache(cache, head); err != nil {
		return 0, err
	}
	if err := checkLength("weight", len(weight), len(index)); err != nil {
		return 0, err
	}
	if given == nil {
		given = &Given{}
	}
	if given.Importance != nil {
		if err := checkLength("Importance", len(given.Importance), int(cache.Tokens)); err != nil {
			return 0, err
		}
	}
	err := b.check(C.go_balance_compress(b.c, b.config.raw(), floats(given.Uniforms), C.uint64_t(len(given.Uniforms)),
		floats(given.Importance), cache.Keys.rows(), cache.Keys.rowScales(), cache.Values.rows(),
		cache.Values.rowScales(), cache.table(), C.uint32_t(head), C.uint32_t(tokens.Begin), C.uint32_t(tokens.End),
		numbers(index), floats(weight), C.uint32_t(len(index))))
	if err != nil {
		return 0, err
	}
	return int(b.c.count), nil
}

// Importance fills `importance` with the mean softmax share that each token had in a prompt's last queries: what the graded
// form goes by. group query heads share the query's first KV head. row is scratch; both have an element for each of the
// query's tokens.
func (b *Balancer) Importance(scale float32, query *Query, group uint32, cache *Cache, row, importance []float32) error {
	if err := b.enter(); err != nil {
		return err
	}
	defer b.leave()
	if query == nil || query.Rows == 0 {
		return invalid("query is nil, or has no rows")
	}
	head := query.Heads.First
	if err := b.setCache(cache, head); err != nil {
		return err
	}
	heads := (uint64(head) + 1) * uint64(group)
	if err := query.View.check("query", extent{1, uint64(query.Rows), heads, uint64(b.config.HeadDim)}); err != nil {
		return err
	}
	if err := checkLength("row", len(row), int(query.Tokens)); err != nil {
		return err
	}
	if err := checkLength("importance", len(importance), int(query.Tokens)); err != nil {
		return err
	}
	q := &b.c.query
	q.tokens, q.rows, q.first_kv_head = C.uint32_t(query.Tokens), C.uint32_t(query.Rows), C.uint32_t(head)
	query.View.shape(&q.view)
	return b.check(C.go_balance_importance(b.c, C.uint32_t(b.config.HeadDim), C.float(scale), C.uint32_t(group),
		query.View.rows(), query.View.rowScales(), cache.Keys.rows(), cache.Keys.rowScales(), cache.Values.rows(),
		cache.Values.rowScales(), cache.table(), floats(row), floats(importance)))
}

// Attend is attention of one query of HeadDim over weighted tokens. denominator nil means the numerator; scale 0 means
// 1 / sqrt(HeadDim).
func (b *Balancer) Attend(scale float32, query []float32, cache *Cache, head uint32, numerator, denominator *Weighted,
	out []float32) error {
	if err := b.enter(); err != nil {
		return err
	}
	defer b.leave()
	if err := b.setCache(cache, head); err != nil {
		return err
	}
	if numerator == nil {
		return invalid("numerator is nil")
	}
	if err := checkLength("query", len(query), int(b.config.HeadDim)); err != nil {
		return err
	}
	if err := checkLength("out", len(out), int(b.config.HeadDim)); err != nil {
		return err
	}
	if err := checkLength("numerator.Weight", len(numerator.Weight), len(numerator.Index)); err != nil {
		return err
	}
	below := Weighted{}
	if denominator != nil {
		below = *denominator
	}
	if err := checkLength("denominator.Weight", len(below.Weight), len(below.Index)); err != nil {
		return err
	}
	return b.check(C.go_balance_attend(b.c, C.uint32_t(len(query)), C.float(scale), floats(query), cache.Keys.rows(),
		cache.Keys.rowScales(), cache.Values.rows(), cache.Values.rowScales(), cache.table(), C.uint32_t(head),
		numbers(numerator.Index), floats(numerator.Weight), C.uint32_t(len(numerator.Index)), numbers(below.Index),
		floats(below.Weight), C.uint32_t(len(below.Index)), floats(out)))
}

// Stats are counters of all calls so far.
func (b *Balancer) Stats() (BalanceStats, error) {
	if err := b.enter(); err != nil {
		return BalanceStats{}, err
	}
	defer b.leave()
	return *(*BalanceStats)(unsafe.Pointer(&b.c.stats)), nil
}

func numbers(s []uint32) *C.uint32_t {
	if len(s) == 0 {
		return nil
	}
	return (*C.uint32_t)(unsafe.Pointer(&s[0]))
}
