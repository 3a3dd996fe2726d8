package kvsift_test

import (
	"fmt"
	"log"

	"kvsift.dev/kvsift"
)

const (
	tokens  = 2048
	heads   = 4
	kvHeads = 2
	dim     = 64
)

// One decode step over a toy cache: which tokens does kvsift read, and what comes out?
func Example() {
	keys, values, queries := random(kvHeads*tokens*dim), random(kvHeads*tokens*dim), make([]float32, heads*dim)
	for i := range queries {
		queries[i] = 4 * keys[(i/dim/2*tokens+1000)*dim+i%dim]
	}
	config, err := kvsift.NewConfig(kvsift.PageStats)
	check(err)
	config.Layers, config.QueryHeads, config.KVHeads, config.HeadDim = 1, heads, kvHeads, dim
	config.MaxTokens, config.BudgetTokens, config.DenseLayers, config.Tail = tokens, 256, 0, kvsift.TailMoments
	policy, err := kvsift.NewPolicy(&config)
	check(err)
	defer policy.Close()

	rows := func(all []float32, first int) kvsift.View { return kvsift.F32(all[first*dim:], dim, tokens*dim) }
	k, v := rows(keys, 0), rows(values, 0)
	check(policy.ObserveKeys(0, kvsift.Heads{}, 0, tokens-1, &k, &v)) // the prompt ...
	check(policy.Advance(tokens - 1))
	k, v = rows(keys, tokens-1), rows(values, tokens-1)
	check(policy.ObserveKeys(0, kvsift.Heads{}, tokens-1, 1, &k, &v)) // ... and the new token

	query := kvsift.Query{Tokens: tokens, View: kvsift.F32(queries, 0, dim)}
	cache := kvsift.Cache{Tokens: tokens, Keys: rows(keys, 0), Values: rows(values, 0)}
	out := make([]float32, heads*dim)
	kept, err := policy.Select(0, &query)
	check(err)
	check(kept.DecodeAttend(&query, &cache, out))
	ranges, err := kept.AppendRanges(nil, 0)
	check(err)
	check(policy.Advance(1))
	for _, r := range ranges {
		if r.Begin <= 1000 && 1000 < r.End {
			fmt.Println("token 1000 is read")
		}
	}
	fmt.Println("the first token is read:", ranges[0].Begin == 0, "and the last:", ranges[len(ranges)-1].End == tokens)
	// Output:
	// token 1000 is read
	// the first token is read: true and the last: true
}

var state = uint32(1)

func random(count int) []float32 {
	numbers := make([]float32, count)
	for i := range numbers {
		state = state*1664525 + 1013904223
		numbers[i] = float32(state>>8)/(1<<24) - 0.5
	}
	return numbers
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
