"""What a folder and a file of Qwen3 say, what is read of others', and mistakes that must be seen."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_weights_check import answers, telling_answers
from weights_samples import QWEN, changed_config, command, last_json, write_exported

from gpt_core import checkpoint
from gpt_core.errors import InputError
from weights import check, engines
from weights.architectures import QWEN3
from weights.compare import TOLERANCE, difference
from weights.convert import convert, main
from weights.engines import torch_twin
from weights.table import rows

C, D, F, H, L, V = QWEN.n_embd, QWEN.n_embd // QWEN.n_head, QWEN.n_hidden, QWEN.n_head, QWEN.n_layer, QWEN.vocab_size
STEP = "step_000030"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return write_exported(tmp_path_factory.mktemp("qwen"), QWEN)


@pytest.fixture(scope="module")
def expected(home):
    return telling_answers(home / "run")


@pytest.fixture
def copy(home, tmp_path):
    return shutil.copytree(home / "hf", tmp_path / "copy")


def test_the_folder_says_qwen3(home):
    config = json.loads((home / "hf" / "config.json").read_text())
    assert config.pop("darija_gpt")["step"] == 30
    assert config == {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "rope_scaling": None,
        "use_sliding_window": False,
        "sliding_window": None,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "dtype": "float32",
        "intermediate_size": F,
        "num_key_value_heads": H,
        "head_dim": D,
        "vocab_size": V,
        "max_position_embeddings": 96,
        "num_hidden_layers": L,
        "num_attention_heads": H,
        "hidden_size": C,
    }
    tensors, weights = load_file(home / "hf" / "model.safetensors"), checkpoint.load(home / "run" / STEP).weights
    for part, name in enumerate("qkv"):
        third = weights["h.1.attn.c_attn.weight"][part * C : (part + 1) * C]
        np.testing.assert_array_equal(tensors[f"model.layers.1.self_attn.{name}_proj.weight"], third)
    assert tensors["model.layers.2.mlp.down_proj.weight"].shape == (C, F)
    text = (home / "hf" / "README.md").read_text()
    assert "Qwen3 architecture (rotary positions" in text and "\n- qwen3\n" in text and "gpt2" not in text.lower()


def test_the_gguf_file_has_what_llama_cpp_reads_for_qwen3(home, tmp_path):
    gguf = pytest.importorskip("gguf")
    convert(home / "run", tmp_path / "model.gguf", "gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    values = {key: field.contents() for key, field in reader.fields.items() if key.startswith(("general.arch", "qwen3."))}
    assert values == {
        "general.architecture": "qwen3",
        "qwen3.vocab_size": len(json.loads((home / "hf" / "tokenizer.json").read_text())["model"]["vocab"]),
        "qwen3.context_length": 96,
        "qwen3.embedding_length": C,
        "qwen3.feed_forward_length": F,
        "qwen3.block_count": L,
        "qwen3.attention.head_count": H,
        "qwen3.attention.head_count_kv": H,
        "qwen3.attention.key_length": D,
        "qwen3.attention.value_length": D,
        "qwen3.attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "qwen3.rope.freq_base": 10_000.0,
    }
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    assert set(tensors) == {row.gguf for row in rows(QWEN3.table, L)}
    weights = checkpoint.load(home / "run" / STEP).weights
    for row in rows(QWEN3.table, L)[1:]:  # all but the embedding, whose padding stays behind
        given = weights[row.twin] if row.third is None else weights[row.twin][row.third * C : (row.third + 1) * C]
        np.testing.assert_array_equal(tensors[row.gguf], given)  # queries and neighbours as pairs in q


ROPE = {"rope_theta": 10_000.0, "rope_type": "default"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_theta": 1_000_000.0}, "rope_theta 1000000.0, the twins compute 10000.0"),
        ({"rope_theta": None}, "rope_theta None"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling {'rope_type': 'yarn', 'factor': 4.0}"),
        ({"rope_parameters": ROPE | {"rope_theta": 5e5}}, "rope_parameters {'rope_theta': 500000.0"),
        ({"rope_parameters": ROPE | {"rope_type": "linear", "factor": 2.0}}, "rope_parameters"),
        ({"rope_parameters": ROPE | {"partial_rotary_factor": 0.5}}, "rope_parameters"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"num_key_value_heads": 1}, "num_key_value_heads 1, the twins compute 5"),
        ({"num_key_value_heads": "absent"}, "num_key_value_heads 32"),
        ({"head_dim": 32}, "head_dim 32, the twins compute 16"),
        ({"head_dim": "absent"}, "head_dim 128"),
        ({"intermediate_size": 240}, "intermediate_size 240, the twins compute 256"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu', the twins compute 'silu'"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps 1e-05"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings False"),
        ({"tie_word_embeddings": "absent"}, "tie_word_embeddings False"),
        ({"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window True"),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "'sliding_attention'"),
        ({"model_type": "qwen2"}, "model_type 'qwen2', expected one of 'gpt2', 'gpt_neox', 'qwen3'"),
        ({"hidden_size": "absent"}, "has no hidden_size"),
        ({"num_hidden_layers": 10**9}, "3 layers, its config says 1000000000"),
        ({"num_hidden_layers": 2, "layer_types": None}, "3 layers, its config says 2"),
        ({"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 5}, "rope rotates pairs"),
        ({"quantization": {"bits": 4}}, "quantized"),
    ],
)
def test_what_the_twins_would_compute_otherwise_is_refused(copy, tmp_path, monkeypatch, capfd, changes, named):
    changed_config(copy, changes)
    code, shown = command(monkeypatch, capfd, main, copy, tmp_path / "back", "--to", "twin")
    assert (code, shown.err.count("\n"), shown.out) == (2, 1, "") and named in shown.err, shown.err
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "same",
    [
        {"rope_parameters": ROPE, "rope_theta": "absent", "rope_scaling": "absent"},
        {"rope_theta": 10_000, "rope_scaling": {"rope_type": "default"}},
        {"layer_types": ["full_attention"] * L, "sliding_window": 4096, "max_window_layers": 28},
        {"rms_norm_eps": "absent", "rope_theta": "absent", "hidden_act": "absent"},
    ],
)
def test_other_words_for_the_same_are_read(home, copy, tmp_path, same):
    changed_config(copy, same)
    convert(copy, tmp_path / "back", "twin")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (home / "run" / STEP / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("lm_head.weight", np.ones((V, C), np.float32), "an lm_head.weight other than model.embed_tokens.weight"),
        ("model.layers.1.self_attn.k_proj.bias", np.ones(C, np.float32), "left over model.layers.1.self_attn.k_proj.bias"),
        (
            "model.layers.1.self_attn.k_proj.weight",
            np.ones((D, C), np.float32),
            r"shape \[16, 80\], its config says \[80, 80\]",
        ),
        ("model.layers.1.mlp.up_proj.weight", np.ones((C, F), np.float32), r"shape \[80, 256\], its config says \[256, 80\]"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(copy, tmp_path, name, value, says):
    save_file(load_file(copy / "model.safetensors") | {name: value}, copy / "model.safetensors")
    with pytest.raises(InputError, match=says):
        convert(copy, tmp_path / "back", "twin")


def interleaved(matrix):
    """Rows of every head in the order in which neighbours are pairs: what llama.cpp wants of Llama, not of Qwen3."""
    return matrix.reshape(H, 2, D // 2, C).swapaxes(1, 2).reshape(C, C)


def broken_tensors(mistake, tensors):
    """A folder's tensors with one mistake of conversion in the second layer."""
    layer = "model.layers.1"
    q, k, gate, up = (
        f"{layer}.{name}.weight" for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj", "mlp.up_proj")
    )
    changed = {
        "swapped q and k": {q: tensors[k], k: tensors[q]},
        "swapped gate and up": {gate: tensors[up], up: tensors[gate]},
        "swapped norms": {
            f"{layer}.self_attn.{a}_norm.weight": tensors[f"{layer}.self_attn.{b}_norm.weight"] for a, b in ("qk", "kq")
        },
        "neighbours as pairs": {name: interleaved(tensors[name]) for name in (q, k)},
        "neighbours as pairs in q": {q: interleaved(tensors[q])},
    }
    return tensors | changed[mistake]


@pytest.mark.parametrize(
    "mistake", ["swapped q and k", "swapped gate and up", "swapped norms", "neighbours as pairs", "neighbours as pairs in q"]
)
def test_a_mistake_in_the_weights_is_seen_ten_times_over(copy, expected, mistake):
    save_file(broken_tensors(mistake, load_file(copy / "model.safetensors")), copy / "model.safetensors")
    apart = difference(expected, answers(torch_twin(copy)))
    assert apart.max_logit_diff > 10 * TOLERANCE["max_logit_diff"] and apart.kl_nats > 10 * TOLERANCE["kl_nats"], apart
    assert not apart.passes(TOLERANCE)


def test_weights_check_passes_and_fails(home, copy, monkeypatch, capfd):
    monkeypatch.setitem(engines.ENGINES, "hf", {"torch": torch_twin})  # transformers has a test of its own
    code, shown = command(monkeypatch, capfd, check.main, home / "run", home / "hf")
    assert (code, last_json(shown.out)["max_logit_diff"]) == (0, 0.0)
    save_file(broken_tensors("neighbours as pairs", load_file(copy / "model.safetensors")), copy / "model.safetensors")
    code, shown = command(monkeypatch, capfd, check.main, home / "run", copy)
    assert code == 1 and last_json(shown.out)["passed"] is False
