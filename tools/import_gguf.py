"""Read back what export_gguf.py wrote: the network of model.py and its SentencePiece tokenizer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable

import gguf
import jax.numpy as jnp
import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from export_gguf import NAMES
from model import Config

SIZES = {"vocab": "vocab_size", "width": "embedding_length", "layers": "block_count",
         "heads": "attention.head_count", "kv_heads": "attention.head_count_kv",
         "head_dim": "attention.key_length", "hidden": "feed_forward_length",
         "context": "context_length", "rope_base": "rope.freq_base",
         "norm_eps": "attention.layer_norm_rms_epsilon"}


def split_pairs(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of each head from neighbours (2i, 2i + 1) to halves (i, i + dim/2), as in model.py."""
    rows, width = weight.shape
    pairs = weight.reshape(rows // head_dim, head_dim // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(rows, width)


def read_params(reader: gguf.GGUFReader, config: Config) -> dict:
    tensors = {t.name: np.asarray(t.data, np.float32) for t in reader.tensors}
    params = {"embed": tensors["token_embd.weight"], "final_norm": tensors["output_norm.weight"]}
    for name, stored in NAMES.items():
        layers = [tensors[f"blk.{i}.{stored}.weight"] for i in range(config.layers)]
        if name in ("wq", "wk"):
            layers = [split_pairs(w, config.head_dim) for w in layers]
        params[name] = np.stack([w.T for w in layers])
    return {name: jnp.asarray(p) for name, p in params.items()}


def read_tokenizer(value: Callable[[str], Any]) -> sentencepiece.SentencePieceProcessor:
    """The vocabulary with the settings of train_tokenizer.py, which the file does not hold."""
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    pieces = zip(*(value(f"tokenizer.ggml.{n}") for n in ("tokens", "scores", "token_type")))
    for piece, score, kind in pieces:
        proto.pieces.add(piece=piece, score=score, type=kind)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type, trainer.byte_fallback = trainer.BPE, True
    for name, stored in (("unk_id", "unknown"), ("bos_id", "bos"), ("eos_id", "eos")):
        setattr(trainer, name, value(f"tokenizer.ggml.{stored}_token_id"))
    trainer.pad_id = -1
    normalizer.name, normalizer.remove_extra_whitespaces = "identity", False
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())


def read_model(path: Path) -> tuple[Config, dict, sentencepiece.SentencePieceProcessor]:
    try:
        reader = gguf.GGUFReader(path)
        fields = reader.fields

        def value(name: str) -> Any:
            return fields[name].contents()

        config = Config(**{n: value(f"llama.{stored}") for n, stored in SIZES.items()})
        return config, read_params(reader, config), read_tokenizer(value)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{path}: cannot be read ({error}); expected a file of export_gguf.py")
