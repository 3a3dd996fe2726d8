#!/usr/bin/env python3
"""PyTorch's scaled_dot_product_attention for one new token over the shapes that bench_device measured, in float16 with
grouped queries, as a graph over rotating buffers; prints it beside kvsift's figures and writes both as JSON."""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch.nn.functional import scaled_dot_product_attention

QUERY_HEADS, KV_HEADS, DIM = 32, 8, 128
ROTATED = 256_000_000  # bytes, beyond any cache on the chip


def microseconds(tokens: int, batch: int, replays: int) -> float:
    """A layer's attention over the whole cache."""
    layer_bytes = 2 * batch * KV_HEADS * tokens * DIM * 2
    layers = max(1, -(-ROTATED // layer_bytes))
    shape = (layers, batch, KV_HEADS, tokens, DIM)
    keys = torch.randn(shape, device="cuda", dtype=torch.float16)
    values = torch.randn(shape, device="cuda", dtype=torch.float16)
    query = torch.randn((batch, QUERY_HEADS, 1, DIM), device="cuda", dtype=torch.float16)

    def step() -> None:
        for layer in range(layers):
            scaled_dot_product_attention(query, keys[layer], values[layer], enable_gqa=True)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graph.replay()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    end.synchronize()
    return 1e3 * begin.elapsed_time(end) / replays / layers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, required=True, help="what bench_device --json wrote")
    parser.add_argument("--json", type=Path, help="where the comparison goes")
    parser.add_argument("--replays", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: PyTorch sees no CUDA device")
        return 77
    runs = json.loads(options.bench.read_text())["runs"]
    shapes = sorted({(r["batch"], r["tokens"]) for r in runs})
    rows: list[dict[str, object]] = []
    for batch, tokens in shapes:
        torch_us = microseconds(tokens, batch, options.replays)
        torch.cuda.empty_cache()
        print(f"{tokens:8} tokens, batch {batch:2}: scaled_dot_product_attention {torch_us:8.2f} us a layer", flush=True)
        for run in (r for r in runs if (r["batch"], r["tokens"]) == (batch, tokens)):
            ratio = torch_us / run["step_us"] if run["step_us"] > 0 else 0.0
            rows.append({**run, "sdpa_us": torch_us, "speedup_of_step_over_sdpa": ratio})
            print(f"    {run['method']:40} budget {run['budget']:5}: step {run['step_us']:8.2f} us, {ratio:5.2f}x")
        if options.json is not None:
            options.json.write_text(json.dumps({"torch": torch.__version__, "runs": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
