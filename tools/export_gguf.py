"""Write a checkpoint of train_model.py as a GGUF file (llama architecture, F16)."""

from __future__ import annotations

import missing  # noqa: F401

import argparse
import os
import sys
from pathlib import Path

import gguf
import numpy as np
import sentencepiece

from train_model import load_checkpoint

NAMES = {"attn_norm": "attn_norm", "ffn_norm": "ffn_norm", "wq": "attn_q", "wk": "attn_k",
         "wv": "attn_v", "wo": "attn_output", "gate": "ffn_gate", "up": "ffn_up",
         "down": "ffn_down"}


def interleave_pairs(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of each head from halves (i, i + dim/2) to neighbours (2i, 2i + 1), as llama rotates."""
    rows, width = weight.shape
    split = weight.reshape(rows // head_dim, 2, head_dim // 2, width)
    return split.swapaxes(1, 2).reshape(rows, width)


def add_tokenizer(writer: gguf.GGUFWriter,
                  tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    tokens, scores, types = [], [], []
    for i in range(tokenizer.vocab_size()):
        tokens.append(tokenizer.id_to_piece(i).encode())
        scores.append(tokenizer.get_score(i))
        kind = gguf.TokenType.NORMAL
        if tokenizer.is_unknown(i):
            kind = gguf.TokenType.UNKNOWN
        elif tokenizer.is_control(i):
            kind = gguf.TokenType.CONTROL
        elif tokenizer.is_byte(i):
            kind = gguf.TokenType.BYTE
        types.append(kind)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(tokenizer.bos_id())
    writer.add_eos_token_id(tokenizer.eos_id())
    writer.add_unk_token_id(tokenizer.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)


def add_tensors(writer: gguf.GGUFWriter, config: dict, params: dict) -> None:
    writer.add_tensor("token_embd.weight", params["embed"].astype(np.float16))
    writer.add_tensor("output_norm.weight", params["final_norm"].astype(np.float32))
    for layer in range(config["layers"]):
        for name, target in NAMES.items():
            weight = np.asarray(params[name][layer], np.float32)
            if weight.ndim == 2:
                weight = np.ascontiguousarray(weight.T)
                if name in ("wq", "wk"):
                    weight = interleave_pairs(weight, config["head_dim"])
                weight = weight.astype(np.float16)
            writer.add_tensor(f"blk.{layer}.{target}.weight", weight)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tokenizer", type=Path, help="SentencePiece .model file")
    parser.add_argument("output", type=Path, help="GGUF file to write")
    args = parser.parse_args()
    saved = load_checkpoint(args.checkpoint)
    config = saved["config"]
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(args.tokenizer))
    if tokenizer.vocab_size() != config["vocab"]:
        sys.exit(f"{args.tokenizer}: {tokenizer.vocab_size()} pieces, expected {config['vocab']}")
    scratch = args.output.with_suffix(".part")
    writer = gguf.GGUFWriter(scratch, "llama")
    writer.add_name("kvsift-tiny")
    writer.add_context_length(config["context"])
    writer.add_embedding_length(config["width"])
    writer.add_block_count(config["layers"])
    writer.add_feed_forward_length(config["hidden"])
    writer.add_head_count(config["heads"])
    writer.add_head_count_kv(config["kv_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_base"])
    writer.add_layer_norm_rms_eps(config["norm_eps"])
    writer.add_vocab_size(config["vocab"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    add_tokenizer(writer, tokenizer)
    add_tensors(writer, config, saved["params"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(scratch, args.output)
    print(f"{args.output}: {args.output.stat().st_size} bytes, step {saved['step']}")


if __name__ == "__main__":
    main()
