package kvsift

import (
	"errors"
	"strings"
	"sync"
	"testing"
)

func isStatus(err error, status Status) bool { return errors.Is(err, status) }

func refused(t *testing.T, err error, wanted error, words string) {
	t.Helper()
	if !errors.Is(err, wanted) || !strings.Contains(err.Error(), words) {
		t.Fatalf("got %v, wanted %v with %q", err, wanted, words)
	}
}

func TestNilAndClosedHandles(t *testing.T) {
	toy, config := newToy(), toyConfig(PageStats)
	query, cache, observation := toy.query(toyPrompt+1, 1), toy.cache(toyPrompt+1), toy.observation()
	view := toyRows(toy.keys, 0)
	policy, err := NewPolicy(&config)
	must(t, err)
	must(t, toy.prompt(policy))
	must(t, policy.ObserveKeys(0, Heads{}, toyPrompt, 1, &view, &view))
	selection, err := policy.Select(0, &query)
	must(t, err)
	must(t, policy.Close())
	must(t, policy.Close())
	for _, p := range []*Policy{nil, {}, policy} {
		_, selectErr := p.Select(0, &query)
		_, forkErr := p.Fork()
		_, sizeErr := p.SnapshotSize()
		_, saveErr := p.SnapshotSave(nil)
		_, infoErr := p.Info()
		_, statsErr := p.Stats()
		for _, err := range []error{
			selectErr, forkErr, sizeErr, saveErr, infoErr, statsErr, p.SnapshotLoad(nil), p.Reset(), p.Truncate(0),
			p.Advance(1), p.PredictNext(0, Heads{}), p.ObserveKeys(0, Heads{}, 0, 1, &view, &view),
			p.ObserveAttention(0, Heads{}, &observation), p.PrefillAttend(0, &query, &cache, toy.out),
		} {
			refused(t, err, ErrClosed, "closed")
		}
	}
	for _, s := range []*Selection{nil, {}, &selection} {
		_, rangesErr := s.AppendRanges(nil, 0)
		_, _, coresetErr := s.AppendCoreset(nil, nil, 0)
		refused(t, rangesErr, ErrClosed, "closed")
		refused(t, coresetErr, ErrClosed, "closed")
		refused(t, s.Attend(&query, &cache, toy.out, nil), ErrClosed, "closed")
		refused(t, s.DecodeAttend(&query, &cache, toy.out), ErrClosed, "closed")
	}
	var store *Store
	var stream *Stream
	var balancer *Balancer
	_, resolveErr := store.Prefetch(0, &selection)
	_, countErr := balancer.Stats()
	for _, err := range []error{resolveErr, countErr, store.Flush(), stream.Truncate(0)} {
		refused(t, err, ErrClosed, "closed")
	}
	for _, err := range []error{(*Policy)(nil).Close(), store.Close(), stream.Close(), balancer.Close()} {
		must(t, err)
	}
}

func TestWrongArguments(t *testing.T) {
	toy, config := newToy(), toyConfig(PageStats)
	policy, err := NewPolicy(&config)
	must(t, err)
	defer policy.Close()
	must(t, toy.prompt(policy))
	at := toyPrompt
	view := toyRows(toy.keys, at)
	short := F32(toy.keys[:10], toyDim, toyTokens*toyDim)
	huge := F32(toy.keys, -1, 0)
	var none View
	observe := func(keys, values *View) error { return policy.ObserveKeys(0, Heads{}, uint32(at), 2, keys, values) }
	refused(t, observe(nil, &view), ErrInvalidArgument, "keys is nil")
	refused(t, observe(&short, &view), ErrInvalidArgument, "keys: the data have 40 bytes")
	refused(t, observe(&view, &short), ErrInvalidArgument, "values: the data have 40 bytes")
	refused(t, observe(&huge, &view), ErrInvalidArgument, "keys")
	refused(t, observe(&none, &view), ErrInvalidArgument, "keys")
	must(t, policy.ObserveKeys(0, Heads{}, uint32(at), 1, &view, &view))

	query, cache := toy.query(at+1, 1), toy.cache(at+1)
	wrong := query
	wrong.View = F32(toy.queries[:toyDim], 0, toyDim)
	_, err = policy.Select(0, &wrong)
	refused(t, err, ErrInvalidArgument, "query")
	_, err = policy.Select(0, nil)
	refused(t, err, ErrInvalidArgument, "query is nil")
	_, err = policy.Select(9, &query)
	refused(t, err, ErrInvalidArgument, "layer is 9")
	_, err = policy.Select(0, &Query{Tokens: uint32(at + 1)})
	refused(t, err, ErrInvalidArgument, "query->view.data is null")
	first, err := policy.Select(0, &query)
	must(t, err)
	selection, err := policy.Select(0, &query)
	must(t, err)
	_, err = first.AppendRanges(nil, 0)
	refused(t, err, ErrStale, "earlier")
	refused(t, first.Attend(&query, &cache, toy.out, nil), ErrStale, "earlier")
	refused(t, first.DecodeAttend(&query, &cache, toy.out), ErrStale, "earlier")
	_, err = selection.AppendRanges(nil, 99)
	refused(t, err, ErrInvalidArgument, "list is 99")
	_, err = selection.AppendBlocks(nil, -1)
	refused(t, err, ErrInvalidArgument, "list is -1")

	refused(t, selection.Attend(&query, nil, toy.out, nil), ErrInvalidArgument, "cache is nil")
	refused(t, selection.Attend(nil, &cache, toy.out, nil), ErrInvalidArgument, "query is nil")
	refused(t, selection.Attend(&query, &cache, toy.out[1:], nil), ErrInvalidArgument, "out has 127")
	bad := cache
	bad.Values = short
	refused(t, selection.Attend(&query, &bad, toy.out, nil), ErrInvalidArgument, "cache values")
	observation := toy.observation()
	observation.BlockMax = observation.BlockMax[1:]
	refused(t, selection.Attend(&query, &cache, toy.out, &observation), ErrInvalidArgument, "BlockMax has 4095")
	observation.BlockMax, observation.BlockMass = nil, nil
	refused(t, selection.Attend(&query, &cache, toy.out, &observation), ErrInvalidArgument, "BlockMax has 0")
	refused(t, policy.ObserveAttention(0, Heads{}, nil), ErrInvalidArgument, "observation is nil")
	refused(t, policy.ObserveAttention(0, Heads{}, &Observation{Tokens: 8, Rows: toy.max, RowStride: 4}),
		ErrInvalidArgument, "RowStride is 4")
	wraps := ^uint64(0)/toyHeads + 1 // so many floats for each head are none in all, modulo 2^64
	refused(t, policy.ObserveAttention(0, Heads{}, &Observation{Tokens: 8, Rows: toy.max,
		RowStride: int(wraps) + len(toy.max)/toyHeads}), ErrInvalidArgument, "Rows has 4096")
	refused(t, policy.ObserveAttention(0, Heads{First: 1, Count: 9}, &Observation{Tokens: 513, Rows: toy.max,
		RowStride: toyBlocks}), ErrInvalidArgument, "")
	table := NewBlockTable([]int32{0, 1, 2, 99}, 0, 256)
	paged := Cache{Tokens: uint32(at + 1), Keys: toyRows(toy.keys, 0).Paged(256*toyDim, 0),
		Values: toyRows(toy.values, 0).Paged(256*toyDim, 0), Table: &table}
	refused(t, selection.Attend(&query, &paged, toy.out, nil), ErrInvalidArgument, "cache keys")
	table = NewBlockTable([]int32{0}, 0, 256)
	refused(t, selection.Attend(&query, &paged, toy.out, nil), ErrInvalidArgument, "block table has 1 entries")
	must(t, selection.Attend(&query, &cache, toy.out, nil))
	refused(t, selection.DecodeAttend(&query, nil, toy.out), ErrInvalidArgument, "cache is nil")
	must(t, selection.DecodeAttend(&query, &cache, toy.out))
	_, err = MergeAttention(toy.out[:4], 0, toy.out[:5], 0)
	refused(t, err, ErrInvalidArgument, "b has 5")
}

func TestWrongConfigurationsAndBytes(t *testing.T) {
	_, err := NewConfig(methodCount)
	refused(t, err, ErrInvalidArgument, "")
	_, err = NewPolicy(nil)
	refused(t, err, ErrInvalidArgument, "nil")
	config := toyConfig(PageStats)
	config.HeadDim = 0
	_, err = NewPolicy(&config)
	refused(t, err, ErrInvalidArgument, "head_dim")
	_, err = NewPolicy(&Config{})
	refused(t, err, ErrInvalidStructSize, "")
	_, err = LoadPredictor([]byte("no weights"))
	refused(t, err, ErrCorrupt, "")
	_, err = MethodFromName("no-such-method")
	refused(t, err, ErrInvalidArgument, "")
	if method, err := MethodFromName("page-stats"); err != nil || method != PageStats {
		t.Fatal(method, err)
	}
	config = toyConfig(PageStats)
	policy, err := NewPolicy(&config)
	must(t, err)
	defer policy.Close()
	refused(t, policy.SnapshotLoad([]byte("no snapshot")), ErrCorrupt, "")
	refused(t, policy.SnapshotLoad(nil), ErrInvalidArgument, "null")
}

func TestWeightsStayOpenWhileTheyAreUsed(t *testing.T) {
	g := readGolden(t, goldenCases[0])
	predictor, err := LoadPredictor(g.weightsFile)
	must(t, err)
	config := toyConfig(AttentionPredictor)
	policy, err := NewPolicyWith(&config, predictor)
	must(t, err)
	fork, err := policy.Fork()
	must(t, err)
	must(t, policy.Close())
	refused(t, predictor.Close(), ErrInUse, "still use")
	must(t, fork.Close())
	must(t, predictor.Close())
	_, err = NewPolicyWith(&config, predictor)
	refused(t, err, ErrClosed, "closed")
}

// Under the race detector too: nobody gets in while another is inside, and whoever is sent away is told so.
func TestTwoGoroutinesOnOneHandle(t *testing.T) {
	toy, config := newToy(), toyConfig(H2O)
	policy, err := NewPolicy(&config)
	must(t, err)
	must(t, toy.prompt(policy))
	var group sync.WaitGroup
	for i := 0; i < 4; i++ {
		group.Add(1)
		go func(closer bool) {
			defer group.Done()
			query := toy.query(toyPrompt+1, 1)
			for n := 0; n < 2000; n++ {
				_, err := policy.Select(0, &query)
				if err != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrOutOfOrder) {
					t.Error(err)
				}
				if closer && n == 1000 {
					for errors.Is(policy.Close(), ErrBusy) {
					}
				}
			}
		}(i == 0)
	}
	group.Wait()
	refused(t, policy.Advance(1), ErrClosed, "closed")
	busy := &Policy{}
	must(t, busy.guard.enter())
	refused(t, busy.Advance(1), ErrBusy, "another goroutine")
	refused(t, busy.Close(), ErrBusy, "another goroutine")
}
