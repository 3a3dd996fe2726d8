package kvsift

// #include "shim.h"
import "C"

// Observation is what a step's attention looked like. Attend fills the block form into buffers of the caller's; an engine
// with its own kernel fills that, or the rows.
type Observation struct {
	Tokens      uint32 // cache length of the step
	Full        bool   // everything was attended
	BlockStride uint32
	BlockMax    []float32 // [query heads][BlockStride]; may be nil beside BlockMass where the method needs masses
	BlockMass   []float32 // the same, nil where the method does not need it (Info().Needs, NeedsMass)
	LogSumExp   []float32 // [query heads]
	Rows        []float32 // [query heads][RowStride] softmax rows; nil: block form
	RowStride   int
}

func (o *Observation) check(queryHeads uint32) error {
	if o.Rows != nil {
		if o.RowStride < 0 || uint64(o.RowStride) < uint64(o.Tokens) {
			return invalid("observation: RowStride is %d, it has %d tokens", o.RowStride, o.Tokens)
		}
		return checkShape("observation: Rows", len(o.Rows), times(uint64(queryHeads), uint64(o.RowStride)))
	}
	wanted := times(uint64(queryHeads), uint64(o.BlockStride))
	if o.BlockMax != nil || o.BlockMass == nil {
		if err := checkShape("observation: BlockMax", len(o.BlockMax), wanted); err != nil {
			return err
		}
	}
	if o.BlockMass != nil {
		if err := checkShape("observation: BlockMass", len(o.BlockMass), wanted); err != nil {
			return err
		}
	}
	return checkLength("observation: LogSumExp", len(o.LogSumExp), int(queryHeads))
}

// Where a cache's rows lie, for one call.
type places struct {
	keys, values           *C.uint8_t
	keyScales, valueScales *C.float
	table                  *C.int32_t
}

// Checks a cache and leaves its numbers where the shims look for them. A cache of a store's is locked until done is called.
func (p *Policy) setCache(cache *Cache) (at places, done *guard, err error) {
	if cache == nil {
		return at, nil, invalid("cache is nil")
	}
	if cache.store != nil {
		return cache.store.places(cache, p)
	}
	if err := cache.check(p.config.KVHeads, p.config.HeadDim); err != nil {
		return at, nil, err
	}
	cache.shape(&p.c.cache)
	return places{cache.Keys.rows(), cache.Values.rows(), cache.Keys.rowScales(), cache.Values.rowScales(),
		cache.table()}, nil, nil
}

func (p *Policy) checkOut(out []float32, rows uint32) error {
	if rows == 0 {
		rows = 1
	}
	row := uint64(p.config.QueryHeads) * uint64(p.config.HeadDim)
	return checkShape("out", len(out), times(uint64(rows), row))
}

// Attend is attention of the query that was selected for. out: [query heads][HeadDim], only the query's heads are written.
// observation may be nil.
func (s *Selection) Attend(query *Query, cache *Cache, out []float32, observation *Observation) error {
	at, done, err := s.enterAttend(query, cache, out)
	if err != nil {
		return err
	}
	defer s.leaveAttend(done)
	p := s.policy
	var max, mass, sums *C.float
	if observation != nil {
		if observation.Rows != nil {
			return invalid("observation: it has Rows, Attend fills blocks")
		}
		if err := observation.check(p.config.QueryHeads); err != nil {
			return err
		}
		p.c.observation.block_stride = C.uint32_t(observation.BlockStride)
		max, mass, sums = floats(observation.BlockMax), floats(observation.BlockMass), floats(observation.LogSumExp)
	}
	err = p.check(C.go_attend(p.c, C.uint32_t(s.layer), query.View.rows(), query.View.rowScales(), at.keys,
		at.keyScales, at.values, at.valueScales, at.table, floats(out), max, mass, sums))
	if err == nil && observation != nil {
		observation.Tokens = uint32(p.c.observation.tokens)
		observation.Full = p.c.observation.full != 0
	}
	return err
}

// DecodeAttend is Attend, and the method learns from what it saw (as by ObserveAttention): faster, and no buffers to lend.
// Where it fails nothing was learnt.
func (s *Selection) DecodeAttend(query *Query, cache *Cache, out []float32) error {
	at, done, err := s.enterAttend(query, cache, out)
	if err != nil {
		return err
	}
	defer s.leaveAttend(done)
	p := s.policy
	return p.check(C.go_decode_attend(p.c, C.uint32_t(s.layer), query.View.rows(), query.View.rowScales(), at.keys,
		at.keyScales, at.values, at.valueScales, at.table, floats(out)))
}

// AttendTail is the tail alone, to be merged with the output of an engine's own kernel (MergeAttention).
func (s *Selection) AttendTail(query *Query, cache *Cache, out, logSumExp []float32) error {
	at, done, err := s.enterAttend(query, cache, out)
	if err != nil {
		return err
	}
	defer s.leaveAttend(done)
	p := s.policy
	if err := checkLength("logSumExp", len(logSumExp), int(p.config.QueryHeads)); err != nil {
		return err
	}
	return p.check(C.go_attend_tail(p.c, C.uint32_t(s.layer), query.View.rows(), query.View.rowScales(), at.keys,
		at.keyScales, at.values, at.valueScales, at.table, floats(out), floats(logSumExp)))
}

func (s *Selection) enterAttend(query *Query, cache *Cache, out []float32) (at places, done *guard, err error) {
	if s == nil || s.policy == nil {
		return at, nil, ErrClosed
	}
	p := s.policy
	if err = p.enter(); err != nil {
		return at, nil, err
	}
	if s.made != p.selected {
		err = ErrStale
	} else if err = p.setQuery(query); err == nil {
		if err = p.checkOut(out, 1); err == nil {
			at, done, err = p.setCache(cache)
		}
	}
	// Lists of a store's come with its cache.
	if err == nil && s.store != nil && (cache.store != s.store || cache.layer != s.storeLayer || cache.serial != s.serial) {
		err = ErrStale
	}
	if err != nil {
		s.leaveAttend(done)
	}
	return at, done, err
}

func (s *Selection) leaveAttend(done *guard) {
	if done != nil {
		done.leave()
	}
	s.policy.leave()
}

// PrefillAttend is exact causal attention of the prompt's last query.Rows tokens; out: [rows][query heads][HeadDim].
func (p *Policy) PrefillAttend(layer uint32, query *Query, cache *Cache, out []float32) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave()
	if err := p.setQuery(query); err != nil {
		return err
	}
	if err := p.checkOut(out, query.Rows); err != nil {
		return err
	}
	at, done, err := p.setCache(cache)
	if done != nil {
		defer done.leave()
	}
	if err != nil {
		return err
	}
	return p.check(C.go_prefill(p.c, C.uint32_t(layer), query.View.rows(), query.View.rowScales(), at.keys,
		at.keyScales, at.values, at.valueScales, at.table, floats(out)))
}

// ObserveAttention feeds a step's attention back.
func (p *Policy) ObserveAttention(layer uint32, heads Heads, observation *Observation) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave()
	if observation == nil {
		return invalid("observation is nil")
	}
	if err := observation.check(p.config.QueryHeads); err != nil {
		return err
	}
	p.setHeads(heads)
	o := &p.c.observation
	o.tokens = C.uint32_t(observation.Tokens)
	o.full = 0
	if observation.Full {
		o.full = 1
	}
	o.block_stride = C.uint32_t(observation.BlockStride)
	o.row_stride = C.uint64_t(observation.RowStride)
	return p.check(C.go_observe(p.c, C.uint32_t(layer), floats(observation.BlockMax), floats(observation.BlockMass),
		floats(observation.LogSumExp), floats(observation.Rows)))
}
