package kvsift

import "math/rand"

// A toy model: two layers, four query heads, two KV heads.
const (
	toyTokens = 1024
	toyPrompt = 512
	toyDim    = 32
	toyHeads  = 4
	toyKV     = 2
	toyBlocks = toyTokens // enough for methods with blocks of one token
)

type toy struct {
	keys, values, queries []float32
	out, max, mass, sums  []float32
}

func random(seed int64, count int) []float32 {
	source := rand.New(rand.NewSource(seed))
	values := make([]float32, count)
	for i := range values {
		values[i] = source.Float32() - 0.5
	}
	return values
}

func newToy() *toy {
	size := toyKV * toyTokens * toyDim
	return &toy{
		keys: random(1, size), values: random(2, size), queries: random(3, toyTokens*toyHeads*toyDim),
		out: make([]float32, toyHeads*toyDim), max: make([]float32, toyHeads*toyBlocks),
		mass: make([]float32, toyHeads*toyBlocks), sums: make([]float32, toyHeads),
	}
}

func toyRows(all []float32, first int) View { return F32(all[first*toyDim:], toyDim, toyTokens*toyDim) }

func (t *toy) cache(tokens int) Cache {
	return Cache{Tokens: uint32(tokens), Keys: toyRows(t.keys, 0), Values: toyRows(t.values, 0)}
}

func (t *toy) query(tokens, rows int) Query {
	view := F32(t.queries[(tokens-rows)*toyHeads*toyDim:], toyHeads*toyDim, toyDim)
	return Query{Tokens: uint32(tokens), View: view, Rows: uint32(rows)}
}

func (t *toy) observation() Observation {
	return Observation{BlockStride: toyBlocks, BlockMax: t.max, BlockMass: t.mass, LogSumExp: t.sums}
}

func toyConfig(method Method) Config {
	config, err := NewConfig(method)
	if err != nil {
		panic(err)
	}
	config.Layers, config.QueryHeads, config.KVHeads, config.HeadDim = 2, toyHeads, toyKV, toyDim
	config.MaxTokens, config.DenseLayers, config.BudgetTokens, config.RollbackTokens = toyTokens, 0, 192, 16
	config.DenseTokens = DenseOff
	return config
}

func (t *toy) prompt(policy *Policy) error {
	keys, values := toyRows(t.keys, 0), toyRows(t.values, 0)
	query, cache := t.query(toyPrompt, toyPrompt), t.cache(toyPrompt)
	out := make([]float32, toyPrompt*toyHeads*toyDim)
	for layer := uint32(0); layer < 2; layer++ {
		if err := policy.ObserveKeys(layer, Heads{}, 0, toyPrompt, &keys, &values); err != nil {
			return err
		}
		if err := policy.PrefillAttend(layer, &query, &cache, out); err != nil {
			return err
		}
	}
	return policy.Advance(toyPrompt)
}

// One decode step. The last layer's output is left in t.out.
func (t *toy) step(policy *Policy, at int) error {
	observation := t.observation()
	info, err := policy.Info()
	if err != nil {
		return err
	}
	if info.Needs&NeedsMass != 0 && at%2 == 1 {
		observation.BlockMax = nil
	}
	return t.layers(policy, at, &observation)
}

// The same, learnt from at once.
func (t *toy) stepAtOnce(policy *Policy, at int) error { return t.layers(policy, at, nil) }

func (t *toy) layers(policy *Policy, at int, observation *Observation) error {
	keys, values := toyRows(t.keys, at), toyRows(t.values, at)
	query, cache := t.query(at+1, 1), t.cache(at+1)
	for layer := uint32(0); layer < 2; layer++ {
		if err := policy.ObserveKeys(layer, Heads{}, uint32(at), 1, &keys, &values); err != nil {
			return err
		}
		selection, err := policy.Select(layer, &query)
		if err != nil {
			return err
		}
		if observation == nil {
			err = selection.DecodeAttend(&query, &cache, t.out)
		} else if err = selection.Attend(&query, &cache, t.out, observation); err == nil {
			err = policy.ObserveAttention(layer, Heads{}, observation)
		}
		if err != nil {
			return err
		}
	}
	return policy.Advance(1)
}
