package kvsift

import (
	"math"
	"testing"
)

func TestEveryMethodStepsForksAndRestores(t *testing.T) {
	toy := newToy()
	for method := Full; method < methodCount; method++ {
		config := toyConfig(method)
		policy, err := NewPolicy(&config)
		if method == Balance && isStatus(err, ErrUnsupported) {
			t.Logf("skipped: %v", err)
			continue
		}
		must(t, err)
		must(t, toy.prompt(policy))
		for i := 0; i < 4; i++ {
			must(t, toy.step(policy, toyPrompt+i))
		}
		fork, err := policy.Fork()
		must(t, err)
		size, err := policy.SnapshotSize()
		must(t, err)
		bytes := make([]byte, size)
		written, err := policy.SnapshotSave(bytes)
		must(t, err)
		restored, err := NewPolicy(&config)
		must(t, err)
		must(t, restored.SnapshotLoad(bytes[:written]))
		atOnce, err := policy.Fork()
		must(t, err)
		must(t, toy.step(policy, toyPrompt+4))
		wanted := append([]float32(nil), toy.out...)
		must(t, toy.stepAtOnce(atOnce, toyPrompt+4))
		sameBits(t, method.String(), toy.out, wanted)
		must(t, toy.step(policy, toyPrompt+5))
		next := append([]float32(nil), toy.out...)
		must(t, toy.stepAtOnce(atOnce, toyPrompt+5))
		sameBits(t, method.String(), toy.out, next)
		for _, other := range []*Policy{fork, restored} {
			must(t, toy.step(other, toyPrompt+4))
			sameBits(t, method.String(), toy.out, wanted)
		}
		must(t, policy.Truncate(toyPrompt+4))
		must(t, toy.step(policy, toyPrompt+4))
		sameBits(t, method.String(), toy.out, wanted)
		info, err := policy.Info()
		must(t, err)
		arena, err := config.ArenaSize()
		must(t, err)
		if info.Tokens != toyPrompt+5 || info.ArenaBytes != arena {
			t.Fatalf("%v: %+v", method, info)
		}
		must(t, policy.Reset())
		for _, p := range []*Policy{policy, fork, atOnce, restored} {
			must(t, p.Close())
		}
	}
}

func sameBits(t *testing.T, name string, got, wanted []float32) {
	t.Helper()
	for i := range wanted {
		if math.Float32bits(got[i]) != math.Float32bits(wanted[i]) || math.IsNaN(float64(got[i])) {
			t.Fatalf("%s: element %d is %g, not %g", name, i, got[i], wanted[i])
		}
	}
}

// No call of a step allocates.
func TestNothingIsAllocated(t *testing.T) {
	toy := newToy()
	config := toyConfig(PageStats)
	config.Tail = TailMoments
	policy, err := NewPolicy(&config)
	must(t, err)
	defer policy.Close()
	must(t, toy.prompt(policy))
	at := toyPrompt
	var failed error
	count := testing.AllocsPerRun(100, func() {
		for _, step := range []func(*Policy, int) error{toy.step, toy.stepAtOnce} {
			if err := step(policy, at); err != nil {
				failed = err
			}
			at++
		}
	})
	must(t, failed)
	if count != 0 {
		t.Fatalf("a step allocates %v times", count)
	}
	keys, values := toyRows(toy.keys, at), toyRows(toy.values, at)
	query, cache := toy.query(at+1, 1), toy.cache(at+1)
	must(t, policy.ObserveKeys(0, Heads{}, uint32(at), 1, &keys, &values))
	ranges, blocks := make([]Range, 0, toyTokens), make([]uint32, 0, toyTokens)
	count = testing.AllocsPerRun(100, func() {
		selection, err := policy.Select(0, &query)
		if err == nil {
			ranges, err = selection.AppendRanges(ranges[:0], 0)
		}
		if err == nil {
			blocks, err = selection.AppendBlocks(blocks[:0], 0)
		}
		if err == nil {
			err = selection.AttendTail(&query, &cache, toy.out, toy.sums)
		}
		if err == nil {
			_, err = policy.Stats()
		}
		if err != nil {
			failed = err
		}
	})
	must(t, failed)
	if count != 0 || len(ranges) == 0 || len(blocks) == 0 {
		t.Fatalf("a select allocates %v times, %d ranges, %d blocks", count, len(ranges), len(blocks))
	}
}

func TestATailApartAndMergedIsTheWhole(t *testing.T) {
	toy := newToy()
	config := toyConfig(PageStats)
	config.Tail = TailMoments
	policy, err := NewPolicy(&config)
	must(t, err)
	defer policy.Close()
	must(t, toy.prompt(policy))
	keys, values := toyRows(toy.keys, toyPrompt), toyRows(toy.values, toyPrompt)
	must(t, policy.ObserveKeys(0, Heads{}, toyPrompt, 1, &keys, &values))
	query, cache := toy.query(toyPrompt+1, 1), toy.cache(toyPrompt+1)
	selection, err := policy.Select(0, &query)
	must(t, err)
	must(t, selection.Attend(&query, &cache, toy.out, nil))
	tail := make([]float32, toyHeads*toyDim)
	must(t, selection.AttendTail(&query, &cache, tail, toy.sums))
	ranges, err := selection.AppendRanges(nil, 0)
	must(t, err)
	kept, sum := exact(toy, ranges, toy.queries[toyPrompt*toyHeads*toyDim:][:toyDim])
	_, err = MergeAttention(kept, sum, tail[:toyDim], toy.sums[0])
	must(t, err)
	for i := range kept {
		if math.Abs(float64(kept[i]-toy.out[i])) > 1e-4 {
			t.Fatalf("element %d: %g, %g", i, kept[i], toy.out[i])
		}
	}
}

// Plain softmax attention over ranges of the first KV head, and its log-sum-exp.
func exact(toy *toy, ranges []Range, query []float32) ([]float32, float32) {
	out, sum := make([]float32, toyDim), 0.0
	for _, r := range ranges {
		for token := int(r.Begin); token < int(r.End); token++ {
			logit := 0.0
			for i := range query {
				logit += float64(toy.keys[token*toyDim+i]) * float64(query[i])
			}
			share := math.Exp(logit / math.Sqrt(toyDim))
			sum += share
			for i := range out {
				out[i] += float32(share) * toy.values[token*toyDim+i]
			}
		}
	}
	for i := range out {
		out[i] /= float32(sum)
	}
	return out, float32(math.Log(sum))
}
