"""Compiles the Triton kernels for devices that need not be there, and reads the PTX."""

import re
from collections import Counter
from importlib import import_module

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from layercast.kernels.triton.launch import OPTIONS

# By import_module, as the package's functions have the names of its modules.
(
    activation,
    attention,
    embedding,
    experts,
    gated,
    key_order,
    linear,
    normalization,
    reduction,
    rotary,
    sampling,
    selection,
    softmax,
) = (
    import_module(f"layercast.kernels.triton.{name}")
    for name in (
        "activation",
        "attention",
        "embedding",
        "experts",
        "gated",
        "key_order",
        "linear",
        "normalization",
        "reduction",
        "rotary",
        "sampling",
        "selection",
        "softmax",
    )
)

ARCHITECTURES = (80, 89, 90, 100)

FORBIDDEN = re.compile(
    r"tf32|\bw?g?mma\b|mma\.|ex2\.approx|lg2\.approx|rcp\.approx|rsqrt\.approx|div\.approx"
    r"|div\.full|sqrt\.approx|tanh\.approx|\.ftz"
)
"""Instructions that round otherwise than the contract, or flush subnormals."""

_FLOATS = {
    "cos",
    "gate",
    "k",
    "l_blocks",
    "logits",
    "m_blocks",
    "maxima",
    "o_blocks",
    "out",
    "q",
    "scores",
    "scratch",
    "sin",
    "sums",
    "up",
    "v",
    "values",
    "w",
    "weights",
    "x",
    "y",
}
_INTEGERS = {
    "begins",
    "cuts",
    "ends",
    "experts",
    "firsts",
    "ids",
    "indices",
    "key_positions",
    "keys",
    "pairs",
    "position_ids",
    "positions",
    "query_positions",
    "sequence_keys",
    "starts",
    "table",
    "targets",
    "tokens",
    "totals",
}
_SMALL_INTEGERS = {
    "counts",
    "seen_blocks",
    "slots",
    "twice",
}
_NUMBERS = {
    "eps",
    "scale",
    "softcap",
    "temperature",
}


def _type_of(name):
    if name in _FLOATS:
        return "*fp32"
    if name in _INTEGERS:
        return "*i64"
    if name in _SMALL_INTEGERS:
        return "*i32"
    if name in ("weight", "bias"):
        return "*bf16"
    if name in _NUMBERS:
        return "fp32"
    return "i64" if name in ("window", "seed_low", "top_p_units") else "i32"


def _attention(kernel, paged, split, rows=32, head_dim=128):
    constants = {"PAGED": paged, "HAS_FIRSTS": paged, **attention.attention_tile(rows, head_dim)}
    num_warps = constants.pop("num_warps")
    types = {"lengths": "*i64" if paged else "*i32"}
    if kernel is attention.merge_kernel:
        return kernel, constants, types, {}
    constants |= {"HAS_SOFTCAP": not paged, "SPLIT": split}
    return kernel, constants, types, {"num_warps": num_warps}


def _few_rows(rows):
    constants = {"ALIGN": 16, "stride_k": 1, **linear.few_rows_tiles(rows)}
    options = {"num_warps": constants.pop("num_warps")}
    return linear.few_rows_kernel, constants, {}, options


def _many_rows(rows, bias):
    constants = {"ALIGN": 16, "stride_k": 1, "SHARDS": 8, "HAS_BIAS": bias}
    constants |= linear.many_rows_tiles(rows)
    options = {"num_warps": constants.pop("num_warps")}
    return linear.many_rows_kernel, constants, {}, options


def _elementwise(function):
    return activation.elementwise_kernel, {"FUNCTION": function, "BLOCK": 1024}, {}, {}


KERNELS = {
    **{
        f"elementwise-{name}": _elementwise(name)
        for name in ("exp", "log", "tanh", "silu", "sigmoid", "gelu", "gelu_tanh")
    },
    "gated": (gated.gated_kernel, {"FUNCTION": "silu", "BLOCK": 1024}, {}, {}),
    "embedding": (embedding.embedding_kernel, {"BLOCK": 1024}, {}, {}),
    "few_rows-1": _few_rows(1),
    "few_rows-8": _few_rows(8),
    "few_rows-32": _few_rows(32),
    "many_rows-64": _many_rows(64, False),
    "many_rows-2048": _many_rows(2048, True),
    "join": (linear.join_kernel, {"SHARDS": 8, "HAS_BIAS": True, "BLOCK": 256}, {}, {}),
    "attention": _attention(attention.attention_kernel, False, False),
    "attention-split": _attention(attention.attention_kernel, False, True, rows=8),
    "attention-paged": _attention(attention.attention_kernel, True, False),
    "attention-paged-split": _attention(attention.attention_kernel, True, True, rows=8),
    "merge": _attention(attention.merge_kernel, False, True, rows=8),
    "merge-paged": _attention(attention.merge_kernel, True, True, rows=8),
    "key_order": (key_order.key_order_kernel, {"TILE": 64, "BLOCK": 1024}, {}, {}),
    "dot": (reduction.dot_kernel, {}, {}, {}),
    "rms_norm": (normalization.rms_norm_kernel, {"UNIT_OFFSET": True, "BLOCK": 1024}, {}, {}),
    "layer_norm": (
        normalization.layer_norm_kernel,
        {"HAS_WEIGHT": True, "HAS_BIAS": True, "BLOCK": 1024},
        {},
        {},
    ),
    "row_maximum": (softmax.row_maximum_kernel, {"BLOCK": 4096}, {}, {"num_warps": 8}),
    "exp_sums": (softmax.exp_sums_kernel, {}, {}, {}),
    "softmax": (softmax.softmax_kernel, {"LOG": False, "BLOCK": 1024}, {}, {}),
    "log_softmax": (softmax.softmax_kernel, {"LOG": True, "BLOCK": 1024}, {}, {}),
    "rotary_table": (
        rotary.rotary_table_kernel,
        {"BLOCK": 256},
        {"inv_freq": "*fp64", "scaling": "*fp64"},
        {},
    ),
    "rotary": (rotary.rotary_kernel, {"UNITS": 8, "BLOCK_D": 128}, {}, {}),
    "order_keys": (selection.order_keys_kernel, {"BLOCK": 1024}, {}, {}),
    "argmax": (selection.argmax_kernel, {"BLOCK": 4096}, {"y": "*i64"}, {"num_warps": 8}),
    "take": (selection.take_kernel, {"BLOCK": 1024}, {"k": "i32"}, {}),
    "scores": (sampling.scores_kernel, {"BLOCK": 1024}, {}, {}),
    "weights": (sampling.weights_kernel, {"BLOCK": 1024}, {"weights": "*i64"}, {}),
    "targets": (sampling.targets_kernel, {}, {}, {}),
    "cuts": (sampling.cuts_kernel, {}, {}, {}),
    "renormalize": (experts.renormalize_kernel, {"BLOCK": 128}, {"k": "i32"}, {}),
    "expert_sum": (experts.expert_sum_kernel, {"BLOCK": 1024}, {}, {}),
    "grouped_linear": (
        experts.grouped_linear_kernel,
        {"PER_PAIR": True, "BM": 16, "BN": 64, "BK": 16, "ALIGN": 16},
        {},
        {"num_warps": 4},
    ),
}
"""Name to kernel, constants, types that differ from the usual of an argument's name, options."""


def compiled_ptx(architecture, kernel, constants, types, options):
    """The PTX of a kernel; ptxas has taken it, too."""
    names = kernel.arg_names
    signature = {
        name: "constexpr" if name in constants else types.get(name, _type_of(name))
        for name in names
    }
    aligned = [["tt.divisibility", 16]]
    # As at run time: torch's allocations and the usual sizes are multiples of 16.
    attributes = {
        (i,): aligned
        for i, name in enumerate(names)
        if signature[name].startswith("*") or name in ("N", "in_features", "stride_m", "stride_n")
    }
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=attributes)
    target = GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options={**OPTIONS, **options}).asm["ptx"]


def forbidden(ptx):
    """What the contract does not allow, as it is written in the PTX."""
    return sorted(set(FORBIDDEN.findall(ptx)))


def float_operations(ptx):
    """How many float32 instructions of each kind there are; a packed one counts twice."""
    counts = Counter()
    for name, packed in re.findall(r"\b(add|sub|mul|fma)(?:\.rn)?\.f32(x2)?\b", ptx):
        counts[name] += 2 if packed else 1
    # An addition of `fma(x, 1, y)`, left as it is written.
    written = len(re.findall(r"\bfma\.rn\.f32[^;]*0f3F800000", ptx))
    counts["add"] += written
    counts["fma"] -= written
    return counts
