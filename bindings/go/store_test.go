package kvsift

import (
	"bytes"
	"encoding/binary"
	"math"
	"path/filepath"
	"testing"
)

const (
	storeTokens = 320
	storeDim    = 32
)

func storeConfig(t *testing.T, backend uint32) StoreConfig {
	config, err := NewStoreConfig(backend)
	must(t, err)
	config.Layers, config.QueryHeads, config.KVHeads, config.HeadDim = 1, 2, 1, storeDim
	config.MaxTokens, config.FastBlocks, config.SinkTokens, config.LocalTokens = 512, 16, 16, 16
	config.Type, config.Storage, config.Direct = TypeF32, TypeF32, 0
	return config
}

func storePolicy(t *testing.T, keys, values *View) *Policy {
	config, err := NewConfig(PageStats)
	must(t, err)
	config.Layers, config.QueryHeads, config.KVHeads, config.HeadDim = 1, 2, 1, storeDim
	config.MaxTokens, config.DenseLayers, config.BudgetTokens = 512, 0, 96
	config.DenseTokens = DenseOff
	config.SinkTokens, config.LocalTokens = 16, 16
	policy, err := NewPolicy(&config)
	must(t, err)
	must(t, policy.ObserveKeys(0, Heads{}, 0, storeTokens, keys, values))
	return policy
}

// Appends all tokens, then takes a step; the output must be the plain cache's, bit for bit.
func checkStore(t *testing.T, store *Store) {
	keys, values := random(1, storeTokens*storeDim), random(2, storeTokens*storeDim)
	k, v := F32(keys, storeDim, 0), F32(values, storeDim, 0)
	must(t, store.Append(0, 0, storeTokens, &k, &v))
	policy := storePolicy(t, &k, &v)
	defer policy.Close()
	query := Query{Tokens: storeTokens, View: F32(random(3, 2*storeDim), 0, storeDim)}
	plain, stored := make([]float32, 2*storeDim), make([]float32, 2*storeDim)
	selection, err := policy.Select(0, &query)
	must(t, err)
	must(t, selection.Attend(&query, &Cache{Tokens: storeTokens, Keys: k, Values: v}, plain, nil))

	ticket, err := store.Prefetch(0, &selection)
	must(t, err)
	must(t, store.Wait(ticket))
	done, err := store.Poll(ticket)
	if err != nil || !done {
		t.Fatal(done, err)
	}
	_, early, err := store.Resolve(0, &selection)
	must(t, err)
	refused(t, selection.Attend(&query, &early, stored, nil), ErrStale, "earlier")
	selection, err = policy.Select(0, &query)
	must(t, err)
	resolved, cache, err := store.Resolve(0, &selection)
	must(t, err)
	must(t, resolved.Attend(&query, &cache, stored, nil))
	sameBits(t, "attention from the store", stored, plain)
	refused(t, resolved.Attend(&query, &early, stored, nil), ErrStale, "earlier")
	_, err = resolved.AppendRanges(nil, 0)
	must(t, err)

	got, others := make([]byte, 3*storeDim*4), make([]byte, 3*storeDim*4)
	must(t, store.Read(0, 0, 40, 3, got, others, nil, nil))
	wanted := make([]byte, 0, len(got))
	for _, x := range keys[40*storeDim : 43*storeDim] {
		wanted = binary.LittleEndian.AppendUint32(wanted, math.Float32bits(x))
	}
	if !bytes.Equal(got, wanted) {
		t.Fatal("Read gave other keys")
	}
	refused(t, resolved.Attend(&query, &cache, stored, nil), ErrStale, "earlier")
	refused(t, store.Read(0, 0, 40, 3, got[1:], others, nil, nil), ErrInvalidArgument, "keys has 383")
	refused(t, store.Append(0, storeTokens, 1, &k, nil), ErrInvalidArgument, "nil")
	_, _, err = store.Resolve(5, &resolved)
	refused(t, err, ErrStale, "earlier")
	stats, err := store.Stats()
	if err != nil || stats.BytesWritten == 0 || stats.CorruptRecords != 0 {
		t.Fatal(stats, err)
	}
}

// The lists of a capped resolve give way to those of the next, for another policy's layer.
func TestStoreWithALateCap(t *testing.T) {
	config := storeConfig(t, StoreHost)
	config.Layers, config.LateBlocks = 2, 0
	store, err := CreateStore(&config, "")
	must(t, err)
	defer store.Close()
	rows := F32(random(1, storeTokens*storeDim), storeDim, 0)
	query := Query{Tokens: storeTokens, View: F32(random(3, 2*storeDim), 0, storeDim)}
	var kept [2]Selection
	var caches [2]Cache
	for layer := range kept {
		must(t, store.Append(uint32(layer), 0, storeTokens, &rows, &rows))
		policy := storePolicy(t, &rows, &rows)
		defer policy.Close()
		selection, err := policy.Select(0, &query)
		must(t, err)
		kept[layer], caches[layer], err = store.Resolve(uint32(layer), &selection)
		must(t, err)
	}
	_, err = kept[0].AppendRanges(nil, 0)
	refused(t, err, ErrStale, "earlier")
	out := make([]float32, 2*storeDim)
	refused(t, kept[0].Attend(&query, &caches[0], out, nil), ErrStale, "earlier")
	must(t, kept[1].Attend(&query, &caches[1], out, nil))
}

func TestStoreInMemory(t *testing.T) {
	config := storeConfig(t, StoreHost)
	config.TraceEvents = 64
	store, err := CreateStore(&config, "")
	must(t, err)
	checkStore(t, store)
	events := make([]StoreEvent, 64)
	if n, err := store.ReadTrace(events); n == 0 || err != nil {
		t.Fatal(n, err)
	}
	must(t, store.Truncate(100))
	if n, err := store.LayerTokens(0); n != 100 || err != nil {
		t.Fatal(n, err)
	}
	must(t, store.Close())
	must(t, store.Close())
	refused(t, store.Flush(), ErrClosed, "closed")
}

func TestStoreInAFile(t *testing.T) {
	config := storeConfig(t, StoreFile)
	path := filepath.Join(t.TempDir(), "store.bin")
	store, err := CreateStore(&config, path)
	must(t, err)
	checkStore(t, store)
	must(t, store.Close())
	store, err = OpenStore(&config, path)
	must(t, err)
	if info, err := store.Info(); err != nil || info.Tokens != storeTokens {
		t.Fatal(info, err)
	}
	must(t, store.Close())
	config.BlockTokens = 32
	_, err = OpenStore(&config, path)
	refused(t, err, ErrConfigMismatch, "")
	_, err = CreateStore(&config, "/nowhere/at/all")
	refused(t, err, ErrIO, "/nowhere/at/all")
}
