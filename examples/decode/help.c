#include <stdio.h>

#include "options.h"

static const char *const help[] = {
    "Answers from a long prompt twice: with full attention over the KV cache, and reading only the\n"
    "part of it that a kvsift policy chooses. Ends with both side by side.\n\n"
    "usage: decode [options]        without any: the model of this repository, a prompt with facts\n"
    "                               planted in it, page statistics with a moments tail, budget 1/8\n\n",
    "What to run\n"
    "  --model FILE         a GGUF file: llama architecture, F32, F16, BF16 or Q8_0 tensors, a\n"
    "                       SentencePiece-style vocabulary   (default: examples/model/kvsift-tiny.gguf)\n"
    "  --prompt TEXT        read this instead of the built-in prompt\n"
    "  --file FILE          read the prompt from a file\n"
    "  --tokens N           generate at most N tokens an answer    (16 built-in; 128 otherwise)\n"
    "  --threads N          default: one for each 16 MiB of weights, at most one a core\n"
    "  --kv-type TYPE       how the cache is stored: f32, f16, bf16, i8 (default: f16)\n\n",
    "What to attend to\n"
    "  --method NAME        full, streaming (first and last tokens), h2o, snapkv, pyramidkv, quest,\n"
    "                       page-stats, ema, uniform, attention-predictor, balance\n"
    "                       (default: page-stats)\n"
    "  --budget B           tokens a head may read (256), or a share of the context (1/8, 12%,\n"
    "                       0.125); sinks and local tokens count   (default: 1/8)\n"
    "  --target-mass P      read as few blocks as hold this share of attention, at most the budget\n"
    "  --tail NAME          what stands for the rest: none, moments (mean and variance of each\n"
    "                       page), balance (a weighted coreset)     (default: moments with\n"
    "                       page-stats, else the method's)\n"
    "  --moments TYPE       how each page's mean and variance are kept: i8, or f16 in twice the bytes\n"
    "                       (default: i8)\n",
    "  --grouping NAME      one choice for each query-head, or for each KV head by mean or max\n"
    "                       (default: mean with page-stats, else the method's)\n"
    "  --block N            tokens a block\n"
    "  --sink N, --local N  first and last tokens that are always read\n"
    "  --dense-layers N     first layers that read everything  (default: the method's, at most one\n"
    "                       in sixteen)\n"
    "  --seed N             for uniform and balance\n\n",
    "Where the cache lies\n"
    "  --device cpu|cuda    cuda: products of weights (by cuBLASLt, where there is one) on the\n"
    "                       first CUDA device; of the answer cache, choices and attention too; the\n"
    "                       rest on the CPU, with copies for each layer. Answers on the CPU first,\n"
    "                       and the text must be the same   (default: cpu)\n"
    "  --attention KIND     with --device cuda: exact, to the CPU's bits, or tensor, on tensor cores\n"
    "                       where rows are f16 or bf16 (default: exact)\n"
    "  --offload host|FILE  in slow memory: answers once with everything in memory and once from a\n"
    "                       store, whose text must be the same. FILE is made, and is gone\n"
    "                       afterwards. With --device cuda: host memory alone, before device\n"
    "                       memory; first with everything on the device\n"
    "  --fast-blocks N      blocks of a KV head that a layer keeps in fast memory  (default: 1/4)\n"
    "  --late-blocks N      blocks that a layer waits for in a step; what comes later is left to the\n"
    "                       tail, so the text may be another; on the CPU     (default: no limit)\n"
    "  --trace FILE         what the store did when, for chrome://tracing and Perfetto; on the CPU\n\n",
    "What to get\n"
    "  --no-compare         the method alone, without full attention first; on a device without the\n"
    "                       CPU, and offloaded without everything in memory first\n"
    "  --json FILE          the figures, layer by layer; not with --offload\n"
    "  --dump-rows DIR      write the prompt's last attention rows for tools/train_predictor.py and\n"
    "                       stop\n\n",
    "Figures\n"
    "  attention mass recovered: of full attention's softmax, the part on tokens that were read;\n"
    "  best possible blocks: the same had the heaviest blocks been known; likeliest token agrees:\n"
    "  along the tokens of the full run, how often both would go on alike.\n\n"
    "Examples\n"
    "  decode --method streaming                      loses what lies in the middle\n"
    "  decode --method quest --budget 64              64 tokens of the cache\n"
    "  decode --file book.txt --tokens 200 --budget 5%\n"};

void options_print_help(void) {
  for (unsigned i = 0; i < sizeof help / sizeof *help; i++) fputs(help[i], stdout);
}
