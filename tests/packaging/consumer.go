// A program outside the module: one step of a method that reads no query.
package main

import (
	"fmt"
	"log"

	"kvsift.dev/kvsift"
)

func main() {
	config, err := kvsift.NewConfig(kvsift.PageStats)
	check(err)
	config.Layers, config.QueryHeads, config.KVHeads, config.HeadDim = 1, 1, 1, 8
	config.MaxTokens, config.BudgetTokens, config.DenseLayers = 2048, 128, 0
	policy, err := kvsift.NewPolicy(&config)
	check(err)
	defer policy.Close()
	keys, query := make([]float32, 2048*8), make([]float32, 8)
	for i := range query {
		keys[1000*8+i], query[i] = 4, 4
	}
	rows := kvsift.F32(keys, 8, 0)
	check(policy.ObserveKeys(0, kvsift.Heads{}, 0, 2048, &rows, &rows))
	kept, err := policy.Select(0, &kvsift.Query{Tokens: 2048, View: kvsift.F32(query, 0, 8)})
	check(err)
	ranges, err := kept.AppendRanges(nil, 0)
	check(err)
	for _, r := range ranges {
		if r.Begin <= 1000 && 1000 < r.End {
			fmt.Println("token 1000 is read")
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
