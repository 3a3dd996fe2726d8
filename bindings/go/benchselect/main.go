// Command benchselect times select of one layer for a small policy, from Go: what bindings/bench/select.c times in C.
package main

import (
	"fmt"
	"log"
	"runtime"
	"time"

	"kvsift.dev/kvsift"
)

const (
	tokens, heads, kvHeads, dim = 1024, 4, 2, 64
	rounds, calls               = 50, 1000
)

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

func main() {
	runtime.LockOSThread()
	keys, queries := random(kvHeads*tokens*dim), random(heads*dim)
	config, err := kvsift.NewConfig(kvsift.Streaming)
	check(err)
	config.Layers, config.QueryHeads, config.KVHeads, config.HeadDim = 1, heads, kvHeads, dim
	config.MaxTokens, config.BudgetTokens, config.DenseLayers = tokens, 192, 0
	policy, err := kvsift.NewPolicy(&config)
	check(err)
	defer policy.Close()
	view := kvsift.F32(keys, dim, tokens*dim)
	check(policy.ObserveKeys(0, kvsift.Heads{}, 0, tokens, &view, &view))
	best, ranges := time.Hour, 0
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for round := 0; round < rounds; round++ {
		start := time.Now()
		for i := 0; i < calls; i++ {
			query := kvsift.Query{Tokens: tokens, View: kvsift.F32(queries, 0, dim)}
			kept, err := policy.Select(0, &query)
			check(err)
			ranges += kept.Lists
		}
		if took := time.Since(start); took < best {
			best = took
		}
	}
	runtime.ReadMemStats(&after)
	fmt.Printf("{\"language\": \"Go\", \"select_ns\": %.1f, \"lists\": %d, \"allocations_per_call\": %.4f}\n",
		float64(best.Nanoseconds())/calls, ranges, float64(after.Mallocs-before.Mallocs)/(rounds*calls))
}
