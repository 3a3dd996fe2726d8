package kvsift

// #include "shim.h"
import "C"

import "unsafe"

// Selection is what a step attends to. It is good until the policy's next Select; after that its methods answer ErrStale.
type Selection struct {
	Tokens       uint32 // cache length it was made for
	Lists        int    // one for each KV head, or for each query head
	PerQueryHead bool
	Everything   bool // each list is the one range of all tokens
	Calibration  bool // the method wants this step's full attention row
	BlockTokens  uint32
	Tail         Tail

	policy *Policy
	layer  uint32
	made   uint64
	// After Resolve the lists may be the store's.
	store      *Store
	storeLayer uint32
	serial     uint64
}

// Select chooses what the query attends to.
func (p *Policy) Select(layer uint32, query *Query) (Selection, error) {
	if err := p.enter(); err != nil {
		return Selection{}, err
	}
	defer p.leave()
	if err := p.setQuery(query); err != nil {
		return Selection{}, err
	}
	p.selected++
	if err := p.check(C.go_select(p.c, C.uint32_t(layer), query.View.rows(), query.View.rowScales())); err != nil {
		return Selection{}, err
	}
	return p.selection(layer), nil
}

func (p *Policy) selection(layer uint32) Selection {
	s := &p.c.selection
	return Selection{
		Tokens: uint32(s.tokens), Lists: int(s.lists), PerQueryHead: s.per_query_head != 0,
		Everything: s.everything != 0, Calibration: s.calibration != 0, BlockTokens: uint32(s.block_tokens),
		Tail: Tail(s.tail), policy: p, layer: layer, made: p.selected,
	}
}

// Locks the policy, and the store where the lists are its own.
func (s *Selection) enter() error {
	if s == nil || s.policy == nil {
		return ErrClosed
	}
	if err := s.policy.enter(); err != nil {
		return err
	}
	err := error(nil)
	if s.made != s.policy.selected {
		err = ErrStale
	} else if s.store != nil {
		err = s.store.enterAt(s.storeLayer, s.serial)
	}
	if err != nil {
		s.policy.leave()
	}
	return err
}

func (s *Selection) leave() {
	if s.store != nil {
		s.store.leave()
	}
	s.policy.leave()
}

// AppendRanges appends the kept tokens of a list to dst: ascending, disjoint, not adjacent. A copy, so that nothing of
// the policy's memory escapes; with room in dst nothing is allocated.
func (s *Selection) AppendRanges(dst []Range, list int) ([]Range, error) {
	if err := s.enter(); err != nil {
		return dst, err
	}
	defer s.leave()
	raw := &s.policy.c.selection
	count, at, err := row(list, int(raw.lists), raw.range_counts, raw.range_stride)
	if err != nil || raw.ranges == nil {
		return dst, err
	}
	first := (*Range)(unsafe.Add(unsafe.Pointer(raw.ranges), at*unsafe.Sizeof(Range{})))
	return append(dst, unsafe.Slice(first, count)...), nil
}

// AppendBlocks appends the blocks of a list that hold a kept token, ascending.
func (s *Selection) AppendBlocks(dst []uint32, list int) ([]uint32, error) {
	if err := s.enter(); err != nil {
		return dst, err
	}
	defer s.leave()
	raw := &s.policy.c.selection
	return appendRow(dst, list, int(raw.lists), raw.blocks, raw.block_counts, raw.block_stride)
}

// AppendMissed appends the blocks of a list that a late check added.
func (s *Selection) AppendMissed(dst []uint32, list int) ([]uint32, error) {
	if err := s.enter(); err != nil {
		return dst, err
	}
	defer s.leave()
	raw := &s.policy.c.selection
	return appendRow(dst, list, int(raw.lists), raw.missed, raw.missed_counts, raw.missed_stride)
}

// AppendCoreset appends the tokens of a KV head's balanced tail, ascending, and their weights.
func (s *Selection) AppendCoreset(tokens []uint32, weights []float32, head int) ([]uint32, []float32, error) {
	if err := s.enter(); err != nil {
		return tokens, weights, err
	}
	defer s.leave()
	raw, heads := &s.policy.c.selection, int(s.policy.config.KVHeads)
	tokens, err := appendRow(tokens, head, heads, raw.coreset, raw.coreset_counts, raw.coreset_stride)
	if err != nil || raw.coreset_weights == nil {
		return tokens, weights, err
	}
	count, at, _ := row(head, heads, raw.coreset_counts, raw.coreset_stride)
	first := (*float32)(unsafe.Add(unsafe.Pointer(raw.coreset_weights), at*4))
	return tokens, append(weights, unsafe.Slice(first, count)...), nil
}

func appendRow(dst []uint32, i, rows int, entries, counts *C.uint32_t, stride C.uint32_t) ([]uint32, error) {
	count, at, err := row(i, rows, counts, stride)
	if err != nil || entries == nil {
		return dst, err
	}
	first := (*uint32)(unsafe.Add(unsafe.Pointer(entries), at*4))
	return append(dst, unsafe.Slice(first, count)...), nil
}

// Entries of row i, and where it begins.
func row(i, rows int, counts *C.uint32_t, stride C.uint32_t) (count int, at uintptr, err error) {
	if i < 0 || i >= rows {
		return 0, 0, invalid("list is %d, the selection has %d", i, rows)
	}
	if counts == nil {
		return 0, 0, nil
	}
	count = int(*(*uint32)(unsafe.Add(unsafe.Pointer(counts), 4*uintptr(i))))
	return count, uintptr(i) * uintptr(stride), nil
}
