"""Collect attention rows for train_predictor.py.

A row dump is a folder with two files. `rows.npy`, float16 [streams][rows][tokens], holds the
causal softmax rows of consecutive queries; a stream is one query head of one layer on one
text. `meta.json` holds "first_length" (tokens that row 0 sees; row r sees r more), "model" and
"streams", a list of {"text", "layer", "head"} in order. Entries beyond what a row sees are zero.

Rows come from a GGUF file of export_gguf.py reading text and task prompts, from a folder of
layerNN_q.npy [queries][heads][dim] and layerNN_k.npy [tokens][kv heads][dim] (the last queries
of a text, rotated already), or from a Hugging Face model.
"""

from __future__ import annotations

import missing  # noqa: F401

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def causal_rows(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Softmax rows [heads][rows][tokens] of the last queries q [rows][heads][dim] over k."""
    rows, heads, dim = q.shape
    tokens, kv_heads, _ = k.shape
    q, k = q.astype(np.float32), k.astype(np.float32)
    seen = tokens - rows + 1 + np.arange(rows)
    future = np.arange(tokens)[None, :] >= seen[:, None]
    out = np.empty((heads, rows, tokens), dtype=np.float16)
    for h in range(heads):
        logits = q[:, h] @ k[:, h * kv_heads // heads].T / np.sqrt(dim)
        logits[future] = -np.inf
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        out[h] = e / e.sum(axis=1, keepdims=True)
    return out


def trace_rows(folder: Path) -> tuple[list[np.ndarray], list[dict]]:
    paths = sorted(folder.glob("layer*_q.npy"))
    if not paths:
        sys.exit(f"{folder}: holds no layerNN_q.npy")
    rows, streams = [], []
    for path in paths:
        layer = int(path.name[5:7])
        try:
            k = np.load(folder / f"layer{layer:02d}_k.npy")
            part = causal_rows(np.load(path), k)
        except (OSError, ValueError) as error:
            sys.exit(f"{path}: {error}")
        rows += list(part)
        streams += [{"text": folder.name, "layer": layer, "head": h} for h in range(len(part))]
    return rows, streams


def gguf_rows(args: argparse.Namespace) -> tuple[list[np.ndarray], list[dict]]:
    import jax.numpy as jnp

    import corpus
    import model
    from import_gguf import read_model
    from tasks import TaskMaker

    config, params, tokenizer = read_model(args.gguf)
    train, valid, _ = corpus.load(args.text, tokenizer)
    maker = TaskMaker(tokenizer.encode, tokenizer.bos_id(), valid if args.held_out else train)
    rng = np.random.default_rng([args.seed, args.held_out])
    rows, streams = [], []
    for text in range(args.texts):
        if text % 3 == 2:
            seq = maker.interleaved(args.length, rng, 6, 0.6, 0.3, 0.2)
        else:
            seq = maker.text(args.length, rng)
        tokens = jnp.asarray([seq.ids[:args.length]])
        _, kept = model.forward(config, params, tokens, keep_qkv=True)
        for layer in range(args.skip_layers, config.layers):
            q, k, _ = (np.asarray(x[0]) for x in kept[layer])
            q = q.reshape(-1, args.length, config.head_dim).swapaxes(0, 1)[-args.rows:]
            part = causal_rows(q, k.swapaxes(0, 1))
            rows += list(part)
            streams += [{"text": f"{'valid' if args.held_out else 'train'}{text}",
                         "layer": layer, "head": h} for h in range(len(part))]
        print(f"text {text + 1} of {args.texts}", file=sys.stderr, flush=True)
    return rows, streams


def open_hugging_face(name: str, length: int) -> tuple[Any, Any]:
    """Tokenizer and network; eager attention, the only kind that hands out its weights."""
    from transformers import (  # type: ignore[import-not-found]
        AutoModelForCausalLM, AutoTokenizer)

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        network = AutoModelForCausalLM.from_pretrained(name, attn_implementation="eager")
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{name}: cannot be read ({error}); expected a causal language model and its "
                 "tokenizer")
    longest = getattr(network.config, "max_position_embeddings", None)
    if longest is not None and length > longest:
        sys.exit(f"{name}: made for {longest} tokens, --length is {length}")
    return tokenizer, network.float().eval()


def last_rows(network: Any, ids: Any, rows: int) -> list[np.ndarray]:
    """Per layer [heads][rows][tokens]. The tokens before the rows are read first, without their
    weights, which would take memory in the square of the length for every layer at once."""
    import torch  # type: ignore[import-not-found]

    with torch.no_grad():
        cache = network(ids[:, :-rows], use_cache=True).past_key_values if rows < ids.shape[1] \
            else None
        weights = network(ids[:, -rows:], past_key_values=cache, use_cache=True,
                          output_attentions=True).attentions
    if not weights or any(w is None or w.shape[-2:] != (rows, ids.shape[1]) for w in weights):
        sys.exit(f"{network.config.model_type}: hands out no attention weights over the whole "
                 "context; expected softmax attention in every layer")
    return [w[0].float().numpy().astype(np.float16) for w in weights]


def hugging_face_rows(args: argparse.Namespace) -> tuple[list[np.ndarray], list[dict]]:
    paths = sorted(args.text.glob("*.txt"))[:args.texts]
    if not paths:
        sys.exit(f"{args.text}: holds no .txt file")
    tokenizer, network = open_hugging_face(args.hugging_face, args.length)
    rows, streams = [], []
    for path in paths:
        ids = tokenizer(path.read_text(errors="replace"), return_tensors="pt").input_ids
        ids = ids[:, :args.length]
        if ids.shape[1] < args.length:
            sys.exit(f"{path}: {ids.shape[1]} tokens, expected at least {args.length}")
        layers = last_rows(network, ids, args.rows)
        for layer, part in enumerate(layers[args.skip_layers:], args.skip_layers):
            rows += list(part)
            streams += [{"text": path.name, "layer": layer, "head": h} for h in range(len(part))]
        print(f"{path.name}: {len(layers)} layers", file=sys.stderr, flush=True)
    if not rows:
        sys.exit(f"{args.hugging_face}: {len(layers)} layers, --skip-layers {args.skip_layers} "
                 "leaves none")
    return rows, streams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("output", type=Path, help="folder to write rows.npy and meta.json to")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--gguf", type=Path, help="file of export_gguf.py")
    source.add_argument("--traces", type=Path, help="folder of layerNN_q.npy and layerNN_k.npy")
    source.add_argument("--hugging-face", help="name or folder of a causal language model (needs "
                        "torch and transformers: pip install torch transformers)")
    parser.add_argument("--text", type=Path, help="folder of .txt files (not for --traces)")
    parser.add_argument("--texts", type=int, default=12)
    parser.add_argument("--length", type=int, default=2048, help="tokens of each text")
    parser.add_argument("--rows", type=int, default=192, help="last queries to keep")
    parser.add_argument("--skip-layers", type=int, default=2, help="first layers, left dense")
    parser.add_argument("--held-out", action="store_true", help="read the held-out text")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not args.traces and not args.text:
        parser.error("--text is needed")
    if not 0 < args.rows <= args.length:
        parser.error(f"--rows is {args.rows}, not in 1 .. --length")
    if args.traces:
        rows, streams = trace_rows(args.traces)
    elif args.gguf:
        rows, streams = gguf_rows(args)
    else:
        rows, streams = hugging_face_rows(args)
    table = np.stack(rows)
    args.output.mkdir(parents=True, exist_ok=True)
    np.save(args.output / "rows.npy", table)
    meta = {"first_length": table.shape[2] - table.shape[1] + 1,
            "model": str(args.gguf or args.traces or args.hugging_face),
            "streams": streams}
    (args.output / "meta.json").write_text(json.dumps(meta))
    print(f"{args.output}: {table.shape} rows")


if __name__ == "__main__":
    main()
