"""What a folder and a file of GPT-NeoX say, what is read of others', and mistakes that must be seen."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_weights_check import answers
from weights_samples import NEOX, changed_config, command, write_exported

from gpt_core import checkpoint
from gpt_core.errors import InputError
from weights.architectures import GPT_NEOX
from weights.compare import TOLERANCE, difference
from weights.convert import convert, main
from weights.engines import torch_twin
from weights.table import rows

C, D, F, H, L, V = NEOX.n_embd, NEOX.n_embd // NEOX.n_head, NEOX.n_hidden, NEOX.n_head, NEOX.n_layer, NEOX.vocab_size
STEP = "step_000030"
QKV = "gpt_neox.layers.1.attention.query_key_value"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return write_exported(tmp_path_factory.mktemp("neox"), NEOX)


@pytest.fixture
def copy(home, tmp_path):
    return shutil.copytree(home / "hf", tmp_path / "copy")


def test_the_folder_says_gpt_neox(home):
    config = json.loads((home / "hf" / "config.json").read_text())
    assert config.pop("darija_gpt")["step"] == 30
    assert config == {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_act": "gelu_new",
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "layer_norm_eps": 1e-5,
        "rotary_emb_base": 10_000.0,
        "rotary_pct": 1.0,
        "rope_scaling": None,
        "use_parallel_residual": False,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "dtype": "float32",
        "intermediate_size": F,
        "vocab_size": V,
        "max_position_embeddings": 96,
        "num_hidden_layers": L,
        "num_attention_heads": H,
        "hidden_size": C,
    }
    text = (home / "hf" / "README.md").read_text()
    assert "GPT-NeoX architecture (GPT-2 with rotary positions)" in text and "\n- gpt_neox\n" in text


def test_queries_keys_and_values_go_head_by_head_and_the_head_is_the_embedding(home):
    tensors, weights = load_file(home / "hf" / "model.safetensors"), checkpoint.load(home / "run" / STEP).weights
    for kind in ("weight", "bias"):
        ours = weights[f"h.1.attn.c_attn.{kind}"]
        for head in range(H):
            for part in range(3):
                theirs = tensors[f"{QKV}.{kind}"][(3 * head + part) * D : (3 * head + part + 1) * D]
                np.testing.assert_array_equal(theirs, ours[part * C + head * D : part * C + (head + 1) * D])
    np.testing.assert_array_equal(tensors["embed_out.weight"], weights["wte.weight"])
    assert tensors["gpt_neox.layers.2.mlp.dense_4h_to_h.weight"].shape == (C, F)


def test_the_gguf_file_has_what_llama_cpp_reads_for_gptneox(home, tmp_path):
    gguf = pytest.importorskip("gguf")
    convert(home / "run", tmp_path / "model.gguf", "gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    values = {key: field.contents() for key, field in reader.fields.items() if key.startswith(("general.arch", "gptneox."))}
    used = len(json.loads((home / "hf" / "tokenizer.json").read_text())["model"]["vocab"])
    assert values == {
        "general.architecture": "gptneox",
        "gptneox.vocab_size": used,
        "gptneox.context_length": 96,
        "gptneox.embedding_length": C,
        "gptneox.feed_forward_length": F,
        "gptneox.block_count": L,
        "gptneox.attention.head_count": H,
        "gptneox.attention.layer_norm_epsilon": pytest.approx(1e-5),
        "gptneox.rope.dimension_count": D,
        "gptneox.rope.freq_base": 10_000.0,
        "gptneox.use_parallel_residual": False,
    }
    tensors, weights = {t.name: t.data for t in reader.tensors}, checkpoint.load(home / "run" / STEP).weights
    assert set(tensors) == {row.gguf for row in rows(GPT_NEOX.table, L)} | {"output.weight"}
    for name in ("token_embd.weight", "output.weight"):
        np.testing.assert_array_equal(tensors[name], weights["wte.weight"][:used])
    for row in rows(GPT_NEOX.table, L)[1:]:
        np.testing.assert_array_equal(tensors[row.gguf], weights[row.twin])  # thirds, not head by head


ROPE = {"rope_theta": 10_000.0, "rope_type": "default", "partial_rotary_factor": 1.0}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_act": "gelu"}, "hidden_act 'gelu', the twins compute 'gelu_new'"),
        ({"hidden_act": "absent"}, "hidden_act 'gelu'"),
        ({"rotary_pct": 0.25}, "rotary_pct 0.25, the twins compute 1.0"),
        ({"rotary_pct": "absent"}, "rotary_pct 0.25"),
        ({"rotary_pct": "absent", "rope_parameters": ROPE | {"partial_rotary_factor": 0.5}}, "rotary_pct 0.5"),
        ({"rope_parameters": ROPE | {"rope_theta": 5e5}}, "rope_parameters {'rope_theta': 500000.0"),
        ({"rotary_emb_base": 500_000}, "rotary_emb_base 500000"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"use_parallel_residual": True}, "use_parallel_residual True"),
        ({"use_parallel_residual": "absent"}, "use_parallel_residual True"),
        ({"tie_word_embeddings": "absent"}, "tie_word_embeddings False"),
        ({"attention_bias": False}, "attention_bias False"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps 1e-06"),
        ({"intermediate_size": 2 * C}, "intermediate_size 160, the twins compute 320"),
        ({"num_hidden_layers": 2}, "3 layers, its config says 2"),
        ({"model_type": "gpt_neo"}, "model_type 'gpt_neo', expected one of 'gpt2', 'gpt_neox', 'qwen3'"),
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
        {"rope_parameters": ROPE, "rotary_pct": "absent", "rotary_emb_base": "absent", "rope_scaling": "absent"},
        {"hidden_act": "gelu_fast", "rope_scaling": {"rope_type": "default"}, "rotary_emb_base": 10_000},
    ],
)
def test_other_words_for_the_same_are_read(home, copy, tmp_path, same):
    changed_config(copy, same)
    convert(copy, tmp_path / "back", "twin")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (home / "run" / STEP / name).read_bytes()


def test_masks_of_old_versions_are_left_out_and_another_head_is_refused(home, copy, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    mask = {"gpt_neox.layers.0.attention.bias": np.ones((1, 1, 96, 96), np.float32)}
    save_file(tensors | mask, copy / "model.safetensors")
    convert(copy, tmp_path / "back", "twin")
    ours = (home / "run" / STEP / "model.safetensors").read_bytes()
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == ours
    save_file(tensors | {"embed_out.weight": tensors["embed_out.weight"] + 1}, copy / "model.safetensors")
    with pytest.raises(InputError, match=r"an embed_out\.weight other than gpt_neox\.embed_in\.weight"):
        convert(copy, tmp_path / "other", "twin")


def broken(mistake, tensors):
    """A folder's tensors with one mistake of conversion in the second layer."""
    weight = tensors[f"{QKV}.weight"]
    if mistake == "thirds instead of heads":
        return tensors | {f"{QKV}.weight": weight.reshape(H, 3, D, C).swapaxes(0, 1).reshape(3 * C, C)}
    order = [1, 0, 2]  # swapped q and k
    return tensors | {f"{QKV}.weight": weight.reshape(H, 3, D, C)[:, order].reshape(3 * C, C)}


@pytest.mark.parametrize("mistake", ["thirds instead of heads", "swapped q and k"])
def test_a_mistake_in_the_weights_is_seen_ten_times_over(home, copy, mistake):
    save_file(broken(mistake, load_file(copy / "model.safetensors")), copy / "model.safetensors")
    apart = difference(answers(torch_twin(home / "run")), answers(torch_twin(copy)))
    assert apart.max_logit_diff > 10 * TOLERANCE["max_logit_diff"] and apart.kl_nats > 10 * TOLERANCE["kl_nats"], apart
