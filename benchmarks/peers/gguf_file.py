"""A checkpoint of a Qwen2 model as the GGUF file that llama.cpp loads: same bits, other names.

Weights of two dimensions are stored as asked, BF16 or F32, both exactly the checkpoint's values;
norms and biases in F32, which is what llama.cpp's own converter does. The file has no vocabulary:
token ids go in and come out.

python -m peers.gguf_file FOLDER FILE BF16|F32
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ARCHITECTURE = "qwen2"

_OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_IN_A_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tensor_name(name):
    """Return what GGUF calls a tensor of a Qwen2 checkpoint.

    Args:
        name: In the checkpoint, e.g. "model.layers.3.mlp.up_proj.weight".

    Raises:
        ValueError: Qwen2 has no such tensor.
    """
    module, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
    if module in _OUTSIDE:
        return f"{_OUTSIDE[module]}.{kind}"
    if layer and layer[2] in _IN_A_LAYER:
        return f"blk.{layer[1]}.{_IN_A_LAYER[layer[2]]}.{kind}"
    raise ValueError(
        f"gguf: `checkpoint` must be of a Qwen2 model, got the tensor {name}. Name another folder."
    )


def metadata(config):
    """Return the file's numbers, by key.

    Args:
        config: Contents of the checkpoint's config.json.
    """
    rope = config.get("rope_parameters") or {}
    numbers = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(rope.get("rope_theta", config.get("rope_theta", 10_000.0))),
        "vocab_size": config["vocab_size"],
    }
    return {f"{ARCHITECTURE}.{key}": value for key, value in numbers.items()}


def tensors(path):
    """Yield name and bits of each tensor, as uint16 of its shape.

    Args:
        path: A safetensors file whose tensors are bfloat16.

    Raises:
        ValueError: A tensor is of another dtype.
    """
    import numpy as np

    file = np.memmap(path, dtype=np.uint8, mode="r")
    length = int.from_bytes(file[:8].tobytes(), "little")
    header = json.loads(file[8 : 8 + length].tobytes())
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if entry["dtype"] != "BF16":
            raise ValueError(
                f"gguf: `checkpoint` must hold bfloat16, got {entry['dtype']} in {name}. Convert "
                "it to bfloat16 first."
            )
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        yield name, file[begin:end].view(np.uint16).reshape(entry["shape"])


def widen(bits):
    """Return float32 of bfloat16's bits: the same values."""
    import numpy as np

    return (bits.astype(np.uint32) << 16).view(np.float32)


def write(folder, path, dtype):
    """Write a checkpoint as GGUF.

    Args:
        folder: Of the checkpoint: config.json and safetensors files.
        path: The file to make; it is whole or not there.
        dtype: Of the matrices, "BF16" or "F32".
    """
    import gguf
    import numpy as np

    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, ARCHITECTURE, use_temp_file=True)
    for key, value in metadata(json.loads((folder / "config.json").read_text())).items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    writer.add_tokenizer_model("none")
    for file in sorted(Path(folder).glob("*.safetensors")):
        for name, bits in tensors(file):
            if dtype == "BF16" and bits.ndim > 1:
                stored = gguf.GGMLQuantizationType.BF16
                writer.add_tensor(tensor_name(name), bits.view(np.uint8), raw_dtype=stored)
            else:
                writer.add_tensor(tensor_name(name), widen(bits))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
