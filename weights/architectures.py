"""The architectures that other tools run: which options of GPTConfig they are, and how a config.json and a GGUF file say it.

What both have alike (sizes under fixed names, tokens, the head tied to the embedding) is written by hf_write and gguf_write.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from gpt_core.config import RMS_EPS, ROPE_BASE, GPTConfig
from gpt_core.errors import InputError
from weights import table
from weights.table import Row

ROPE = {"rope_theta": ROPE_BASE, "rope_type": "default"}
"""As transformers 5 writes it under `rope_parameters`; before, `rope_theta` stood alone, and `rope_scaling` beside it."""

UNSCALED = (None, {"rope_type": "default"}, {"type": "default"})
FIELDS = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "block_size",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "hidden_size": "n_embd",
}
"""Of config.json, in all architectures but GPT-2."""


@dataclass(frozen=True)
class Architecture:
    """A choice of all options, under the names of Hugging Face and GGUF."""

    name: str
    described: str
    """For the model card."""
    model_type: str
    """Of config.json."""
    gguf_name: str
    """`general.architecture` of a GGUF file."""
    class_name: str
    """In transformers."""
    options: dict[str, Any]
    """GPTConfig's field -> value, for every field that is not a size."""
    table: tuple[Row, ...]
    fields: dict[str, str]
    """config.json's key -> GPTConfig's field, for the sizes that are read; a file must have them."""
    settings: dict[str, Any]
    """config.json's keys that are written beside them, the same for every model."""
    sizes: Callable[[GPTConfig], dict[str, Any]]
    """config.json's keys that are written and follow from the configuration."""
    allowed: Callable[[GPTConfig], dict[str, tuple[Any, ...]]]
    """config.json's key -> values under which the tools compute what the twins do, first the one to be named in an error."""
    absent: dict[str, Any]
    """What transformers takes for a key of `allowed` that a file lacks, where that is not the first value there."""
    rope: dict[str, str]
    """Key in `rope_parameters` -> key under which it stood alone before, where its absence would mean another value."""
    gguf: Callable[[GPTConfig], dict[str, int | float]]
    """Keys of the metadata behind `gguf_name.`, floats in 32 bits."""
    prefixes: str
    """Regular expression of what stands before the table's names in files of others."""

    @property
    def context_key(self) -> str:
        """The context length's key in config.json, and attribute in transformers and mlx-lm."""
        return next(theirs for theirs, ours in self.fields.items() if ours == "block_size")

    @property
    def embedding(self) -> str:
        """Hugging Face's name of the embedding."""
        return next(row.hf for row in self.table if row.twin == "wte.weight")


GPT2 = Architecture(
    name="GPT-2",
    described="GPT-2 architecture",
    model_type="gpt2",
    gguf_name="gpt2",
    class_name="GPT2LMHeadModel",
    options={"positions": "learned", "norm": "layernorm", "qk_norm": False, "mlp": "gelu", "bias": True},
    table=table.GPT2,
    fields={
        "vocab_size": "vocab_size",
        "n_positions": "block_size",
        "n_layer": "n_layer",
        "n_head": "n_head",
        "n_embd": "n_embd",
    },
    settings={
        "activation_function": "gelu_new",
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "n_inner": None,
        "tie_word_embeddings": True,
    },
    sizes=lambda model: {"n_ctx": model.block_size},  # gone from transformers; mlx-lm and llama.cpp's converter need it
    allowed=lambda model: {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "layer_norm_epsilon": (1e-5,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
        "n_inner": (model.n_hidden, None),
    },
    absent={},
    rope={},
    gguf=lambda model: {"attention.layer_norm_epsilon": 1e-5},
    prefixes=r"^(?:_orig_mod\.|module\.|transformer\.)+",
)
GPT_NEOX = Architecture(
    name="GPT-NeoX",
    described="GPT-NeoX architecture (GPT-2 with rotary positions)",
    model_type="gpt_neox",
    gguf_name="gptneox",
    class_name="GPTNeoXForCausalLM",
    options=GPT2.options | {"positions": "rope"},
    table=table.GPT_NEOX,
    fields=FIELDS,
    settings={
        "hidden_act": "gelu_new",
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "layer_norm_eps": 1e-5,
        "rotary_emb_base": ROPE_BASE,  # these three rather than `rope_parameters`: every version of every tool reads them
        "rotary_pct": 1.0,
        "rope_scaling": None,
        "use_parallel_residual": False,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
    },
    sizes=lambda model: {"intermediate_size": model.n_hidden},
    allowed=lambda model: {
        "hidden_act": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
        "attention_bias": (True,),
        "layer_norm_eps": (1e-5,),
        "rotary_emb_base": (ROPE_BASE,),
        "rotary_pct": (1.0,),
        "rope_scaling": UNSCALED,
        "rope_parameters": (ROPE | {"partial_rotary_factor": 1.0}, None),
        "use_parallel_residual": (False,),
        "tie_word_embeddings": (True,),
        "intermediate_size": (model.n_hidden,),
    },
    absent={
        "hidden_act": "gelu",
        "rotary_pct": 0.25,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "intermediate_size": 24_576,
    },
    rope={"partial_rotary_factor": "rotary_pct"},
    gguf=lambda model: {
        "attention.layer_norm_epsilon": 1e-5,
        "rope.dimension_count": model.n_embd // model.n_head,
        "rope.freq_base": ROPE_BASE,
        "use_parallel_residual": False,
    },
    prefixes=r"^(?:_orig_mod\.|module\.)+",
)
QWEN3 = Architecture(
    name="Qwen3",
    described="Qwen3 architecture (rotary positions, RMSNorm, QK-norm, SwiGLU, no biases)",
    model_type="qwen3",
    gguf_name="qwen3",
    class_name="Qwen3ForCausalLM",
    options={"positions": "rope", "norm": "rmsnorm", "qk_norm": True, "mlp": "swiglu", "bias": False},
    table=table.QWEN3,
    fields=FIELDS,
    settings={
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rms_norm_eps": RMS_EPS,
        "rope_theta": ROPE_BASE,  # here rather than in `rope_parameters`: every version of every tool reads it
        "rope_scaling": None,
        "use_sliding_window": False,
        "sliding_window": None,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
    },
    sizes=lambda model: {
        "intermediate_size": model.n_hidden,
        "num_key_value_heads": model.n_head,
        "head_dim": model.n_embd // model.n_head,
    },
    allowed=lambda model: {
        "hidden_act": ("silu", "swish"),
        "attention_bias": (False,),
        "rms_norm_eps": (RMS_EPS,),
        "rope_theta": (ROPE_BASE,),
        "rope_scaling": UNSCALED,
        "rope_parameters": (ROPE, None),
        "partial_rotary_factor": (1.0, None),
        "use_sliding_window": (False,),
        "layer_types": (["full_attention"], None),
        "tie_word_embeddings": (True,),
        "intermediate_size": (model.n_hidden,),
        "num_key_value_heads": (model.n_head, None),
        "head_dim": (model.n_embd // model.n_head,),
    },
    absent={"tie_word_embeddings": False, "intermediate_size": 22_016, "num_key_value_heads": 32, "head_dim": 128},
    rope={},
    gguf=lambda model: {
        "attention.head_count_kv": model.n_head,
        "attention.key_length": model.n_embd // model.n_head,
        "attention.value_length": model.n_embd // model.n_head,
        "attention.layer_norm_rms_epsilon": RMS_EPS,
        "rope.freq_base": ROPE_BASE,
    },
    prefixes=r"^(?:_orig_mod\.|module\.)+",
)
ARCHITECTURES = (GPT2, GPT_NEOX, QWEN3)


def architecture_of(model: GPTConfig, origin: str) -> Architecture:
    """The architecture whose options a model has, all of them. Raises InputError for a mixture, which no other tool runs."""
    ways = []
    for other in ARCHITECTURES:
        if not (differing := others(model, other)):
            return other
        ways.append(f"{', '.join(differing)} in the way of {other.name}")
    names = ", ".join(other.name for other in ARCHITECTURES)
    raise InputError(f"{origin} mixes options, only all those of one of {names} can be exported: {'; '.join(ways)}")


def others(model: GPTConfig, architecture: Architecture) -> list[str]:
    """The options that a model has otherwise, with their values."""
    found = {name: getattr(model, name) for name in architecture.options}
    return [f"{name} {_word(value)}" for name, value in found.items() if value != architecture.options[name]]


def named(name: Any, origin: str, field: Literal["model_type", "gguf_name"] = "model_type") -> Architecture:
    """The architecture of a config.json's model_type, or of a GGUF file's `general.architecture`. Raises InputError."""
    for other in ARCHITECTURES:
        if getattr(other, field) == name:
            return other
    known = ", ".join(repr(getattr(other, field)) for other in ARCHITECTURES)
    key = "model_type" if field == "model_type" else "general.architecture"
    raise InputError(f"{origin} has {key} {repr(name)[:60]}, expected one of {known}: no other is converted")


def _word(value: Any) -> str:
    return str(value) if not isinstance(value, bool) else "on" if value else "off"
