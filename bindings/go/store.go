package kvsift

// #include "shim_store.h"
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// Store is a KV cache larger than fast memory: blocks on a slow tier, a fixed number of slots in C memory. It must be closed.
type Store struct {
	guard
	c       *C.go_store
	config  StoreConfig
	serials []uint64   // of each layer, counted up by whatever moves its blocks
	device  cgo.Handle // 0: none
}

// NewStoreConfig is a configuration with the defaults of a backend: StoreFile, StoreHost with memory that the store
// allocates at create, or StoreCustom with a Device. Layers, KVHeads, HeadDim, MaxTokens and FastBlocks must be set.
func NewStoreConfig(backend uint32) (StoreConfig, error) {
	var config StoreConfig
	config.structSize = uint32(unsafe.Sizeof(config))
	err := check(C.kvsift_store_config_init(config.raw(), C.uint32_t(backend)))
	return config, err
}

func (c *StoreConfig) raw() *C.kvsift_store_config {
	return (*C.kvsift_store_config)(unsafe.Pointer(c))
}

// CreateStore makes an empty store. path is used by StoreFile only.
func CreateStore(config *StoreConfig, path string) (*Store, error) {
	return makeStoreAt(config, path, 1)
}

// OpenStore opens what an earlier store left, after a close or a crash.
func OpenStore(config *StoreConfig, path string) (*Store, error) {
	return makeStoreAt(config, path, 0)
}

func makeStoreAt(config *StoreConfig, path string, fresh C.int) (*Store, error) {
	if config == nil || config.Backend == StoreCustom {
		return nil, invalid("config is nil, or is for a device: that takes CreateStoreOn or OpenStoreOn")
	}
	return makeStore(config, path, 0, fresh)
}

func makeStore(config *StoreConfig, path string, device C.uintptr_t, fresh C.int) (*Store, error) {
	text := C.CString(path)
	defer C.free(unsafe.Pointer(text))
	var s sentence
	store := &Store{config: *config}
	if err := s.check(C.go_store_make(config.raw(), text, device, fresh, s.raw(), &store.c)); err != nil {
		return nil, err
	}
	store.serials = make([]uint64, config.Layers)
	return store, nil
}

// Close flushes, and frees the store; it does that even where the flush fails, and says so.
func (s *Store) Close() error {
	if s == nil {
		return nil
	}
	if err := s.guard.enter(); err != nil {
		return err
	}
	defer s.leave()
	if s.c == nil {
		return nil
	}
	err := s.check(C.go_store_flush(s.c)) // before close, after which there is no sentence
	C.go_store_close(s.c)
	s.c = nil
	if s.device != 0 {
		s.device.Delete()
		s.device = 0
	}
	return err
}

func (s *Store) enter() error {
	if s == nil {
		return ErrClosed
	}
	if err := s.guard.enter(); err != nil {
		return err
	}
	if s.c == nil {
		s.leave()
		return ErrClosed
	}
	return nil
}

// Enters where nothing has moved the layer's blocks since.
func (s *Store) enterAt(layer uint32, serial uint64) error {
	if err := s.enter(); err != nil {
		return err
	}
	if s.serials[layer] != serial {
		s.leave()
		return ErrStale
	}
	return nil
}

func (s *Store) moves(layer uint32) {
	if uint64(layer) < uint64(len(s.serials)) {
		s.serials[layer]++
	}
}

func (s *Store) movesAll() {
	for layer := range s.serials {
		s.serials[layer]++
	}
}

func (s *Store) check(status C.kvsift_status) error {
	if Status(status) == ok {
		return nil
	}
	return failure(status, C.kvsift_store_last_error(s.c.handle))
}

// Append adds tokens of a layer, all KV heads; the views are indexed from 0.
func (s *Store) Append(layer, first, tokens uint32, keys, values *View) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if keys == nil || values == nil {
		return invalid("keys or values is nil")
	}
	e := extent{1, uint64(tokens), uint64(s.config.KVHeads), uint64(s.config.HeadDim)}
	if err := keys.check("keys", e); err != nil {
		return err
	}
	if err := values.check("values", e); err != nil {
		return err
	}
	s.moves(layer)
	keys.shape(&s.c.keys)
	values.shape(&s.c.values)
	return s.check(C.go_store_append(s.c, C.uint32_t(layer), C.uint32_t(first), C.uint32_t(tokens), keys.rows(),
		keys.rowScales(), values.rows(), values.rowScales()))
}

// Prefetch starts fetching the blocks of a selection that are not in fast memory.
func (s *Store) Prefetch(layer uint32, selection *Selection) (Ticket, error) {
	if err := s.enterWith(selection); err != nil {
		return 0, err
	}
	defer s.leaveWith(selection)
	s.moves(layer)
	err := s.check(C.go_store_prefetch(s.c, C.uint32_t(layer), selection.policy.c))
	return Ticket(s.c.ticket), err
}

// Resolve brings what is missing of a selection into fast memory. Cache and selection are good until the next Append,
// Prefetch, Resolve, Read or Truncate of the layer. With a late cap the selection may have lost blocks, and both are good
// until the next Resolve of any layer.
func (s *Store) Resolve(layer uint32, selection *Selection) (Selection, Cache, error) {
	if err := s.enterWith(selection); err != nil {
		return Selection{}, Cache{}, err
	}
	defer s.leaveWith(selection)
	if uint64(layer) >= uint64(len(s.serials)) {
		return Selection{}, Cache{}, invalid("layer is %d, the store has %d", layer, len(s.serials))
	}
	s.moves(layer)
	if s.config.LateBlocks != StoreNoLimit || s.config.LateMicroseconds != StoreNoLimit {
		s.movesAll() // the store has room for one layer's lists
	}
	p := selection.policy
	p.selected++
	if err := s.check(C.go_store_resolve(s.c, C.uint32_t(layer), p.c)); err != nil {
		return Selection{}, Cache{}, err
	}
	kept := p.selection(selection.layer)
	kept.store, kept.storeLayer, kept.serial = s, layer, s.serials[layer]
	return kept, Cache{Tokens: uint32(s.cache(layer).tokens), store: s, layer: layer, serial: kept.serial}, nil
}

// Locks both. A selection that a resolve gave is refused: its lists may be a store's.
func (s *Store) enterWith(selection *Selection) error {
	if err := s.enter(); err != nil {
		return err
	}
	err := ErrClosed
	if selection != nil && selection.policy != nil {
		err = selection.policy.enter()
		if err == nil && (selection.made != selection.policy.selected || selection.store != nil) {
			selection.policy.leave()
			err = ErrStale
		}
	}
	if err != nil {
		s.leave()
	}
	return err
}

func (s *Store) leaveWith(selection *Selection) {
	selection.policy.leave()
	s.leave()
}

func (s *Store) cache(layer uint32) *C.kvsift_cache {
	return &unsafe.Slice(s.c.caches, len(s.serials))[layer]
}

// Locks the store for a call on a cache of its own, and leaves the cache's numbers where the shims look for them.
func (s *Store) places(cache *Cache, p *Policy) (at places, done *guard, err error) {
	if err := s.enterAt(cache.layer, cache.serial); err != nil {
		return at, nil, err
	}
	if p.config.KVHeads > s.config.KVHeads || p.config.HeadDim != s.config.HeadDim {
		s.leave()
		return at, nil, invalid("cache: it has %d KV heads of HeadDim %d, the policy %d of %d", s.config.KVHeads,
			s.config.HeadDim, p.config.KVHeads, p.config.HeadDim)
	}
	c := s.cache(cache.layer)
	p.c.cache = *c
	return places{(*C.uint8_t)(c.keys.data), (*C.uint8_t)(c.values.data), c.keys.scales, c.values.scales,
		c.block_table}, &s.guard, nil
}

// Wait waits for a prefetch.
func (s *Store) Wait(ticket Ticket) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.check(C.go_store_wait(s.c, C.uint64_t(ticket)))
}

// Poll tells whether a prefetch is done.
func (s *Store) Poll(ticket Ticket) (bool, error) {
	if err := s.enter(); err != nil {
		return false, err
	}
	defer s.leave()
	err := s.check(C.go_store_poll(s.c, C.uint64_t(ticket)))
	return err == nil && s.c.count != 0, err
}

// Read copies tokens of one KV head to keys and values, [tokens][HeadDim] of the storage type as bytes, and for TypeI8 their
// scales; else these are nil.
func (s *Store) Read(layer, head, first, tokens uint32, keys, values []byte, keyScales, valueScales []float32) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	bytes := times(uint64(tokens), uint64(s.config.HeadDim)*elementBytes(s.config.Storage))
	if err := checkShape("keys", len(keys), bytes); err != nil {
		return err
	}
	if err := checkShape("values", len(values), bytes); err != nil {
		return err
	}
	if s.config.Storage == TypeI8 && (len(keyScales) != int(tokens) || len(valueScales) != int(tokens)) {
		return invalid("scales have %d and %d elements for %d tokens", len(keyScales), len(valueScales), tokens)
	}
	s.moves(layer)
	return s.check(C.go_store_read(s.c, C.uint32_t(layer), C.uint32_t(head), C.uint32_t(first), C.uint32_t(tokens),
		start(keys), start(values), floats(keyScales), floats(valueScales)))
}

// Truncate forgets tokens from `tokens` on, in every layer that has more.
func (s *Store) Truncate(tokens uint32) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.movesAll()
	return s.check(C.go_store_truncate(s.c, C.uint32_t(tokens)))
}

// Flush waits until all completed blocks are written and durable.
func (s *Store) Flush() error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.check(C.go_store_flush(s.c))
}

// Info describes the store.
func (s *Store) Info() (StoreInfo, error) {
	if err := s.enter(); err != nil {
		return StoreInfo{}, err
	}
	defer s.leave()
	err := s.check(C.go_store_info(s.c))
	return *(*StoreInfo)(unsafe.Pointer(&s.c.info)), err
}

// LayerTokens is how many tokens a layer has; 0 where there is no such layer.
func (s *Store) LayerTokens(layer uint32) (uint32, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	return uint32(C.go_store_layer_tokens(s.c, C.uint32_t(layer))), nil
}

// Stats are counters since create.
func (s *Store) Stats() (StoreStats, error) {
	if err := s.enter(); err != nil {
		return StoreStats{}, err
	}
	defer s.leave()
	err := s.check(C.go_store_stats(s.c))
	return *(*StoreStats)(unsafe.Pointer(&s.c.stats)), err
}

// ReadTrace moves events out of the trace, oldest first, and returns how many.
func (s *Store) ReadTrace(events []StoreEvent) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	if len(events) == 0 {
		return 0, nil
	}
	first := (*C.kvsift_store_event)(unsafe.Pointer(&events[0]))
	if err := s.check(C.go_store_trace(s.c, first, C.uint32_t(len(events)))); err != nil {
		return 0, err
	}
	return int(s.c.count), nil
}
