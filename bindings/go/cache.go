package kvsift

// #include "shim.h"
import "C"

import "unsafe"

// BlockTable holds the page number of each PageTokens tokens. Made once, used for many calls.
type BlockTable struct {
	entries    []int32
	stride     uint32
	pageTokens uint32
	pages      uint64
}

// NewBlockTable takes one table for all heads (stride 0), or one for each KV head, stride entries apart. A page that is not
// there has a negative number.
func NewBlockTable(entries []int32, stride, pageTokens uint32) BlockTable {
	last := int32(-1)
	for _, page := range entries {
		if page > last {
			last = page
		}
	}
	return BlockTable{entries, stride, pageTokens, uint64(int64(last) + 1)}
}

// Cache is one layer's cache: the caller's memory, only read.
type Cache struct {
	Tokens uint32 // rows present, the new token's included
	Keys   View
	Values View
	Table  *BlockTable // nil: contiguous
	// A cache that lies in a store.
	store  *Store
	layer  uint32
	serial uint64
}

// Heads is a range of KV heads, with all their query heads. The zero value is all of them.
type Heads struct {
	First uint32
	Count uint32 // 0: to the last
}

// One past the last head; more than there are is left to the library to refuse.
func (h Heads) end(heads uint32) uint32 {
	if h.Count == 0 || uint64(h.First)+uint64(h.Count) > uint64(heads) {
		return heads
	}
	return h.First + h.Count
}

// Query is the queries of one call.
type Query struct {
	Tokens uint32 // cache length that the (last) query sees, itself included
	View   View   // its heads are query heads, its tokens the rows of a prompt; none where Info().Needs does not ask for it
	Heads  Heads
	Rows   uint32 // 0 means 1
}

func (c *Cache) check(heads, headDim uint32) error {
	e := extent{1, uint64(c.Tokens), uint64(heads), uint64(headDim)}
	if c.Table != nil {
		if c.Table.pageTokens == 0 {
			return invalid("cache: PageTokens is 0")
		}
		page := uint64(c.Table.pageTokens)
		wanted := (e.tokens+page-1)/page + uint64(heads-1)*uint64(c.Table.stride)
		if have := uint64(len(c.Table.entries)); wanted > have {
			return invalid("cache: the block table has %d entries, %d heads of %d tokens need %d", have, heads, c.Tokens,
				wanted)
		}
		e.pages, e.tokens = c.Table.pages, page
	}
	if err := c.Keys.check("cache keys", e); err != nil {
		return err
	}
	return c.Values.check("cache values", e)
}

// The numbers of a cache; its pointers are arguments.
func (c *Cache) shape(to *C.kvsift_cache) {
	to.tokens = C.uint32_t(c.Tokens)
	c.Keys.shape(&to.keys)
	c.Values.shape(&to.values)
	to.page_tokens, to.block_table_stride = 0, 0
	if c.Table != nil {
		to.page_tokens = C.uint32_t(c.Table.pageTokens)
		to.block_table_stride = C.uint32_t(c.Table.stride)
	}
}

func (c *Cache) table() *C.int32_t {
	if c.Table == nil || len(c.Table.entries) == 0 {
		return nil
	}
	return (*C.int32_t)(unsafe.Pointer(&c.Table.entries[0]))
}
