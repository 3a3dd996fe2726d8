package kvsift

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"strings"
	"testing"
)

// The published AttentionPredictor's own runs: what tests/conformance/attention_predictor_policy_test.c checks, from the
// same files.

const (
	goldenBlock      = 16
	goldenSink       = 64
	goldenPromptRows = 64
	goldenMaxTokens  = 2048
)

type goldenCase struct {
	name, weights        string
	heads, prompt, steps int
	budget, period       uint32
}

var goldenCases = []goldenCase{
	{"random_base", "random_weights", 2, 700, 40, 320, 5},
	{"random_growing", "random_weights", 2, 160, 70, 192, 5},
	{"random_no_calibration", "random_weights", 1, 513, 24, 256, 0},
	{"random_short", "random_weights", 1, 90, 48, 256, 5},
	{"published_base", "published_weights", 4, 1000, 48, 384, 5},
	{"published_period_3", "published_weights", 2, 600, 30, 256, 3},
}

type golden struct {
	goldenCase
	prefillLogits, decodeLogits, predicted []float32
	kept                                   []byte
	lens, predictedCols                    []int
	weightsFile                            []byte
}

// Copied cases lie in the tree; the published ones only beside it.
func goldenFolder(name string) string {
	root := "../../../shared/golden"
	if strings.HasPrefix(name, "random") {
		root = "../../tests/conformance/data"
	}
	return filepath.Join(root, "attention_predictor", name)
}

// nil where a file is missing.
func readGolden(t *testing.T, c goldenCase) *golden {
	missing := false
	read := func(folder, name, kind string) []byte {
		data, err := readNpy(filepath.Join(goldenFolder(folder), name+".npy"), kind)
		if err != nil {
			t.Fatal(err)
		}
		missing = missing || data == nil
		return data
	}
	g := &golden{goldenCase: c}
	g.prefillLogits = toFloats(read(c.name, "prefill_logits", "f4"))
	g.decodeLogits = toFloats(read(c.name, "decode_logits", "f4"))
	g.predicted = toFloats(read(c.name, "predicted", "f4"))
	g.kept = read(c.name, "kept_tokens", "u1")
	g.lens = toInts(read(c.name, "lens", "i4"))
	g.predictedCols = toInts(read(c.name, "predicted_cols", "i4"))
	var tensors []byte
	for _, name := range []string{"conv1", "conv2", "conv3"} {
		tensors = append(tensors, read(c.weights, name+".weight", "f4")...)
		tensors = append(tensors, read(c.weights, name+".bias", "f4")...)
	}
	if missing {
		return nil
	}
	g.weightsFile = weightsFile(tensors)
	return g
}

// The tensors as tools/convert_predictor.py writes them to a file.
func weightsFile(tensors []byte) []byte {
	const prime = 0x100000001b3
	hash := uint64(0xcbf29ce484222325)
	at := 0
	for ; at+8 <= len(tensors); at += 8 {
		hash = (hash ^ binary.LittleEndian.Uint64(tensors[at:])) * prime
		hash ^= hash >> 32
	}
	for ; at < len(tensors); at++ {
		hash = (hash ^ uint64(tensors[at])) * prime
	}
	file := make([]byte, 24, 24+len(tensors))
	copy(file, "KVSIFTPW")
	binary.LittleEndian.PutUint32(file[8:], 1)
	binary.LittleEndian.PutUint32(file[12:], uint32(len(tensors)/4))
	binary.LittleEndian.PutUint64(file[16:], hash)
	return append(file, tensors...)
}

// Where the entries of a head and step begin in a flat array of counts[t] entries for each head of step t.
func (g *golden) at(counts []int, head, step int) int {
	at := head * counts[step]
	for _, n := range counts[:step] {
		at += n * g.heads
	}
	return at
}

func softmax(logits []float32, kept []byte, row []float32) {
	top, sum := math.Inf(-1), 0.0
	for t := range row {
		if kept == nil || kept[t] != 0 {
			top = math.Max(top, float64(logits[t]))
		}
	}
	for t := range row {
		if kept == nil || kept[t] != 0 {
			sum += math.Exp(float64(logits[t]) - top)
		}
	}
	for t := range row {
		row[t] = 0
		if kept == nil || kept[t] != 0 {
			row[t] = float32(math.Exp(float64(logits[t])-top) / sum)
		}
	}
}

func (g *golden) prefill(t *testing.T, policy *Policy, rows []float32) {
	for r := 0; r < goldenPromptRows; r++ {
		tokens := g.prompt - goldenPromptRows + r + 1
		for head := 0; head < g.heads; head++ {
			softmax(g.prefillLogits[(head*goldenPromptRows+r)*g.prompt:], nil, rows[head*goldenMaxTokens:][:tokens])
		}
		must(t, policy.ObserveAttention(0, Heads{}, &Observation{Tokens: uint32(tokens), Full: true, Rows: rows,
			RowStride: goldenMaxTokens}))
	}
	must(t, policy.Advance(uint32(g.prompt)))
}

// What differs from the golden choice must be as good as tied with its weakest block.
func (g *golden) checkChoice(t *testing.T, kept []byte, head, step int) {
	at := g.at(g.predictedCols, head, step)
	scores := g.predicted[at : at+g.predictedCols[step]]
	expected := g.kept[g.at(g.lens, head, step):]
	cut, scale := math.Inf(1), 0.0
	const left = goldenSink / goldenBlock
	for j, score := range scores {
		if expected[(left+j)*goldenBlock] != 0 {
			cut = math.Min(cut, float64(score))
		}
		scale = math.Max(scale, math.Abs(float64(score)))
	}
	for token := 0; token < g.lens[step]; token++ {
		j := token/goldenBlock - left
		if kept[token] == expected[token] ||
			j >= 0 && j < len(scores) && math.Abs(float64(scores[j])-cut) <= 2e-5*scale {
			continue
		}
		t.Fatalf("%s head %d step %d: token %d differs", g.name, head, step, token)
	}
}

func (g *golden) runStep(t *testing.T, policy *Policy, step int, rows []float32) {
	tokens := g.lens[step]
	full := g.period != 0 && (step+1)%int(g.period) == 0
	selection, err := policy.Select(0, &Query{Tokens: uint32(tokens)})
	must(t, err)
	if selection.Calibration != full || selection.Everything != (uint32(tokens) <= g.budget) {
		t.Fatalf("%s step %d: %+v", g.name, step, selection)
	}
	for head := 0; head < g.heads; head++ {
		kept := make([]byte, tokens)
		ranges, err := selection.AppendRanges(nil, head)
		must(t, err)
		for _, r := range ranges {
			for i := r.Begin; i < r.End; i++ {
				kept[i] = 1
			}
		}
		if !selection.Everything {
			g.checkChoice(t, kept, head, step)
		}
		at := g.at(g.lens, head, step)
		kept = g.kept[at:]
		if full {
			kept = nil
		}
		softmax(g.decodeLogits[at:], kept, rows[head*goldenMaxTokens:][:tokens])
	}
	must(t, policy.ObserveAttention(0, Heads{}, &Observation{Tokens: uint32(tokens), Full: full, Rows: rows,
		RowStride: goldenMaxTokens}))
	if step%2 == 0 {
		must(t, policy.PredictNext(0, Heads{}))
	}
	must(t, policy.Advance(1))
}

func TestAttentionPredictorFollowsThePublishedRuns(t *testing.T) {
	for _, c := range goldenCases {
		g := readGolden(t, c)
		if g == nil {
			if strings.HasPrefix(c.name, "random") {
				t.Fatalf("%s: no golden data", c.name)
			}
			t.Logf("skipped %s: no golden data", c.name)
			continue
		}
		predictor, err := LoadPredictor(g.weightsFile)
		must(t, err)
		for _, kvHeads := range []int{c.heads, 1} {
			config, err := NewConfig(AttentionPredictor)
			must(t, err)
			config.Layers, config.QueryHeads, config.KVHeads = 1, uint32(c.heads), uint32(kvHeads)
			config.HeadDim, config.MaxTokens, config.DenseLayers = 8, goldenMaxTokens, 0
			config.BudgetTokens, config.CalibrationPeriod, config.CalibrationDense = c.budget, c.period, 0
			config.DenseTokens = DenseOff
			policy, err := NewPolicyWith(&config, predictor)
			must(t, err)
			rows := make([]float32, c.heads*goldenMaxTokens)
			g.prefill(t, policy, rows)
			for step := 0; step < c.steps; step++ {
				g.runStep(t, policy, step, rows)
			}
			must(t, policy.Close())
		}
		must(t, predictor.Close())
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
