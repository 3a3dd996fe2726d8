package kvsift

import (
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"testing"
)

// BalanceKV: the published implementation's choices, from the files of tests/conformance/balance_test.c.

type balanceCase struct {
	name               string
	gamma, temperature float32
	halvings, group    uint32
}

var balanceCases = []balanceCase{
	{"halve_once", 4, 0.1, 1, 128},
	{"ragged", 0.05, 0.5, 2, 128},
	{"quarter", 4, 1, 2, 256},
	{"small_gamma", 0.002, 0.1, 2, 256},
}

type balanceGolden struct {
	balanceCase
	heads, tokens, dim int
	keys, values       []float32
	uniforms           [][]float32
	kept               []int
	weights            []float32
}

// nil where the case is not there.
func readBalance(t *testing.T, c balanceCase) *balanceGolden {
	for _, root := range []string{"../../tests/conformance/data/balancekv", "../../../shared/golden/balancekv"} {
		read := func(name, kind string) []byte {
			data, err := readNpy(filepath.Join(root, c.name, name+".npy"), kind)
			must(t, err)
			return data
		}
		keys := read("keys", "f4")
		if keys == nil {
			continue
		}
		g := &balanceGolden{balanceCase: c, keys: toFloats(keys), values: toFloats(read("values", "f4"))}
		shape, err := npyShape(filepath.Join(root, c.name, "keys.npy"))
		must(t, err)
		g.heads, g.tokens, g.dim = shape[0], shape[1], shape[2]
		for i := uint32(0); i < c.halvings; i++ {
			g.uniforms = append(g.uniforms, toFloats(read(fmt.Sprintf("uniforms_%d", i), "f4")))
		}
		g.kept = toInts(readEither(t, filepath.Join(root, c.name, "kept_index.npy")))
		g.weights = toFloats(read("weights", "f4"))
		return g
	}
	return nil
}

// Numbers of 4 or 8 bytes, as 4.
func readEither(t *testing.T, path string) []byte {
	data, err := readNpy(path, "i4")
	if err == nil {
		return data
	}
	data, err = readNpy(path, "i8")
	must(t, err)
	short := make([]byte, 0, len(data)/2)
	for i := 0; i < len(data); i += 8 {
		short = binary.LittleEndian.AppendUint32(short, uint32(binary.LittleEndian.Uint64(data[i:])))
	}
	return short
}

func (g *balanceGolden) checkHead(t *testing.T, head int) {
	config, err := NewBalanceConfig(BalancePractical)
	must(t, err)
	config.HeadDim, config.Halvings, config.GroupTokens = uint32(g.dim), g.halvings, g.group
	config.Gamma, config.Temperature, config.Weights = g.gamma, g.temperature, BalancePublished
	balancer, err := NewBalancer(&config, uint32(g.tokens))
	must(t, err)
	defer balancer.Close()
	var given Given
	for _, all := range g.uniforms {
		size := len(all) / g.heads
		given.Uniforms = append(given.Uniforms, all[head*size:][:size]...)
	}
	cache := Cache{Tokens: uint32(g.tokens), Keys: F32(g.keys, g.dim, g.tokens*g.dim),
		Values: F32(g.values, g.dim, g.tokens*g.dim)}
	index, weight := make([]uint32, g.tokens), make([]float32, g.tokens)
	count, err := balancer.Compress(&cache, uint32(head), Range{0, uint32(g.tokens)}, &given, index, weight)
	must(t, err)
	expected := len(g.kept) / g.heads
	if count != expected {
		t.Fatalf("%s head %d: %d kept, not %d", g.name, head, count, expected)
	}
	got, wanted := make([]float32, g.tokens), make([]float32, g.tokens)
	for i := 0; i < count; i++ {
		got[index[i]] = weight[i]
		wanted[g.kept[head*expected+i]] = g.weights[head*expected+i]
	}
	sameBits(t, g.name, got, wanted)
	_, err = balancer.Compress(&cache, uint32(g.heads), Range{0, uint32(g.tokens)}, nil, index, weight)
	refused(t, err, ErrInvalidArgument, "cache keys")
	_, err = balancer.Compress(&cache, 0, Range{0, uint32(g.tokens)}, nil, index, weight[1:])
	refused(t, err, ErrInvalidArgument, "weight has")
	_, err = balancer.Compress(&cache, 0, Range{0, uint32(g.tokens)}, &Given{Importance: weight[1:]}, index, weight)
	refused(t, err, ErrInvalidArgument, "Importance has")
}

func TestCompressFollowsThePublishedChoices(t *testing.T) {
	for _, c := range balanceCases {
		g := readBalance(t, c)
		if g == nil {
			t.Logf("skipped %s: neither copied nor beside the tree", c.name)
			continue
		}
		for head := 0; head < g.heads; head++ {
			g.checkHead(t, head)
		}
	}
}

func TestASetOfAllTokensAttendsLikeSoftmax(t *testing.T) {
	config, err := NewBalanceConfig(BalancePractical)
	must(t, err)
	config.HeadDim = 8
	balancer, err := NewBalancer(&config, 64)
	must(t, err)
	defer balancer.Close()
	keys, values, query := random(1, 64*8), random(2, 64*8), random(3, 8)
	cache := Cache{Tokens: 64, Keys: F32(keys, 8, 0), Values: F32(values, 8, 0)}
	all := Weighted{Index: make([]uint32, 64), Weight: make([]float32, 64)}
	wanted, sum := make([]float64, 8), 0.0
	for i := range all.Index {
		all.Index[i], all.Weight[i] = uint32(i), 1
		logit := 0.0
		for c := range query {
			logit += float64(query[c]) * float64(keys[i*8+c])
		}
		sum += math.Exp(logit)
		for c := range wanted {
			wanted[c] += math.Exp(logit) * float64(values[i*8+c])
		}
	}
	out := make([]float32, 8)
	must(t, balancer.Attend(1, query, &cache, 0, &all, nil, out))
	for c := range out {
		if math.Abs(float64(out[c])-wanted[c]/sum) > 1e-5 {
			t.Fatalf("element %d is %g, not %g", c, out[c], wanted[c]/sum)
		}
	}
	all.Index[63] = 64
	refused(t, balancer.Attend(1, query, &cache, 0, &all, nil, out), ErrInvalidArgument, "64")
	refused(t, balancer.Attend(1, query, &cache, 0, nil, nil, out), ErrInvalidArgument, "numerator is nil")
}

func TestAStreamIsTheSameHoweverItIsPushed(t *testing.T) {
	config, err := NewStreamConfig(BalancePractical)
	must(t, err)
	config.Balance.HeadDim, config.MaxTokens, config.BatchTokens, config.RollbackBatches = 8, 4096, 64, 2
	keys, values := random(4, 1000*8), random(5, 1000*8)
	whole, err := NewStream(&config)
	must(t, err)
	defer whole.Close()
	k, v := F32(keys, 8, 0), F32(values, 8, 0)
	must(t, whole.Push(&k, &v, 0, 1000))
	parts, err := NewStream(&config)
	must(t, err)
	defer parts.Close()
	for i := 0; i < 1000; i += 50 {
		k, v := F32(keys[i*8:], 8, 0), F32(values[i*8:], 8, 0)
		must(t, parts.Push(&k, &v, 0, 50))
	}
	size, err := parts.SnapshotSize()
	must(t, err)
	bytes := make([]byte, size)
	written, err := parts.SnapshotSave(bytes)
	must(t, err)
	restored, err := NewStream(&config)
	must(t, err)
	defer restored.Close()
	must(t, restored.SnapshotLoad(bytes[:written]))
	fork, err := restored.Fork()
	must(t, err)
	defer fork.Close()
	wanted, out := make([]float32, 8), make([]float32, 8)
	must(t, whole.Attend(0, keys[:8], wanted))
	first, _, err := whole.AppendTokens(nil, nil)
	if err != nil || len(first) == 0 || len(first) >= 1000 {
		t.Fatal(len(first), err)
	}
	for _, stream := range []*Stream{parts, restored, fork} {
		must(t, stream.Attend(0, keys[:8], out))
		sameBits(t, "stream", out, wanted)
	}
	wide := F32(keys, 8, 1000*8)
	refused(t, whole.Push(&wide, &v, 1, 1000), ErrInvalidArgument, "keys")
	refused(t, whole.Attend(0, keys[:7], out), ErrInvalidArgument, "query has 7")
	must(t, whole.Truncate(990))
	refused(t, whole.Truncate(1), ErrRollback, "")
	if tokens, _, _, err := whole.Count(); tokens != 990 || err != nil {
		t.Fatal(tokens, err)
	}
}
