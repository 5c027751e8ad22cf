"""Models with all of Qwen3's options: the same checks as for GPT-2, on the way to every tool and back; mixtures are refused."""

import dataclasses
import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from test_weights_check import answers, assert_same, import_tool, quiet
from weights_samples import MODEL, QWEN, last_json, write_run, write_tokenizer

import mlx_gpt.model
import torch_gpt.model
from gpt_core import checkpoint, cli
from gpt_core.config import GPTConfig, presets
from gpt_core.errors import InputError
from gpt_core.names import parameters
from weights import architectures, check, engines
from weights.architectures import ARCHITECTURES, GPT2, QWEN3, architecture_of
from weights.compare import TOLERANCE, difference
from weights.convert import convert, main
from weights.engines import torch_twin
from weights.prompts import PROMPTS
from weights.table import rows

C, D, F, H, L, V = QWEN.n_embd, QWEN.n_embd // QWEN.n_head, QWEN.n_hidden, QWEN.n_head, QWEN.n_layer, QWEN.vocab_size
STEP = "step_000030"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    write_run(folder / "run", QWEN)
    convert(folder / "run", folder / "hf", "hf")
    return folder


@pytest.fixture(scope="module")
def expected(home):
    found = answers(torch_twin(home / "run"))
    texts = [answer.added[:20] for answer in found[: len(PROMPTS)]]
    assert min(map(len, texts)) == 20 and len(set(map(tuple, texts))) == len(texts), "greedy text that tells"
    return found


@pytest.fixture
def copy(home, tmp_path):
    return shutil.copytree(home / "hf", tmp_path / "copy")


def command(monkeypatch, capfd, action, *arguments):
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.run(action)
    return end.value.code, capfd.readouterr()


@pytest.mark.parametrize(("architecture", "model"), [(GPT2, MODEL), (QWEN3, QWEN)])
def test_an_architecture_chooses_every_option_and_names_every_parameter(architecture, model):
    options = {item.name for item in dataclasses.fields(GPTConfig)} - set(architecture.fields.values())
    assert set(architecture.options) == options
    filled = rows(architecture.table, model.n_layer)
    assert {row.twin for row in filled} == {parameter.name for parameter in parameters(model)}
    for names in zip(*[((row.twin, row.third), row.hf, row.gguf) for row in filled], strict=True):
        assert len(set(names)) == len(filled)


def test_the_constants_are_the_twins():
    for twin in (mlx_gpt.model, torch_gpt.model):
        assert (twin.ROPE_BASE, twin.RMS_EPS) == (architectures.ROPE_BASE, architectures.RMS_EPS)


@pytest.mark.parametrize(("architecture", "prefix"), [(GPT2, "transformer."), (QWEN3, "")])
def test_llama_cpps_own_map_of_names_is_ours(architecture, prefix):
    gguf = pytest.importorskip("gguf")
    kind = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture.model_type)
    theirs = gguf.get_tensor_name_map(kind, L)
    for row in rows(architecture.table, L):
        assert theirs.get_name(prefix + row.hf, try_suffixes=(".weight", ".bias")) == row.gguf


def test_twin_to_hf_to_twin_gives_the_same_bytes(home, tmp_path):
    convert(home / "hf", tmp_path / "back", "twin")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "back" / name).read_bytes() == (home / "run" / STEP / name).read_bytes()


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


def test_gpt2s_config_is_what_it_was(tmp_path):
    """Key by key, in order: other people's scripts read it."""
    convert(write_run(tmp_path / "run"), tmp_path / "hf", "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    config.pop("darija_gpt")
    assert list(config.items()) == [
        ("architectures", ["GPT2LMHeadModel"]),
        ("model_type", "gpt2"),
        ("activation_function", "gelu_new"),
        ("attn_pdrop", 0.0),
        ("embd_pdrop", 0.0),
        ("resid_pdrop", 0.0),
        ("layer_norm_epsilon", 1e-5),
        ("initializer_range", 0.02),
        ("n_inner", None),
        ("tie_word_embeddings", True),
        ("bos_token_id", 0),
        ("eos_token_id", 0),
        ("pad_token_id", 0),
        ("dtype", "float32"),
        ("n_ctx", 96),
        ("vocab_size", 640),
        ("n_positions", 96),
        ("n_layer", 2),
        ("n_head", 2),
        ("n_embd", 64),
    ]
    assert "- gpt2\n" in (tmp_path / "hf" / "README.md").read_text()


def test_transformers_gives_the_same(home, expected):
    """Measured: 4.6e-6; 6.6e-6 between the twins."""
    import_tool("transformers")
    assert_same(difference(expected, quiet(lambda: answers(engines.transformers(home / "hf")))))


def test_saving_with_transformers_and_coming_back_changes_no_byte(home, tmp_path):
    tools = import_tool("transformers")
    for tool in (tools.AutoModelForCausalLM, tools.AutoTokenizer):
        quiet(lambda tool=tool: tool.from_pretrained(home / "hf").save_pretrained(tmp_path / "saved"))
    assert "rope_theta" in json.loads((tmp_path / "saved" / "config.json").read_text())["rope_parameters"]
    convert(tmp_path / "saved", tmp_path / "back", "twin")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "back" / name).read_bytes() == (home / "run" / STEP / name).read_bytes(), name


def test_mlx_lm_gives_the_same(home, expected):
    """Measured: 7.1e-6."""
    import_tool("mlx_lm")
    assert_same(difference(expected, quiet(lambda: answers(engines.mlx_lm(home / "hf")))))


@pytest.fixture(scope="module")
def gguf_file(home):
    pytest.importorskip("gguf")
    convert(home / "run", home / "model.gguf", "gguf")
    return home / "model.gguf"


def test_the_gguf_file_has_what_llama_cpp_reads_for_qwen3(home, gguf_file):
    reader = pytest.importorskip("gguf").GGUFReader(gguf_file)
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


def test_llama_cpp_gives_the_same(gguf_file, expected):
    """No GELU, so no table in half precision and no wider limits: measured 8.6e-6."""
    pytest.importorskip("llama_cpp")
    engine = engines.llama_cpp(gguf_file)
    assert not engine.coarse
    assert_same(difference(expected, answers(engine)))


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
        ({"model_type": "qwen2"}, "model_type 'qwen2', expected 'gpt2' or 'qwen3'"),
        ({"hidden_size": "absent"}, "has no hidden_size"),
        ({"num_hidden_layers": 10**9}, "3 layers, its config says 1000000000"),
        ({"num_hidden_layers": 2, "layer_types": None}, "3 layers, its config says 2"),
        ({"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 5}, "rope rotates pairs"),
        ({"quantization": {"bits": 4}}, "quantized"),
    ],
)
def test_what_the_twins_would_compute_otherwise_is_refused(copy, tmp_path, monkeypatch, capfd, changes, named):
    path = copy / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "absent"}))
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
    path = copy / "config.json"
    config = json.loads(path.read_text()) | same
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "absent"}))
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


MIXED: dict[str, tuple[dict[str, Any], str]] = {
    "norm": (
        {"norm": "rmsnorm"},
        "norm rmsnorm in the way of GPT-2; positions learned, qk_norm off, mlp gelu, bias on in the way of",
    ),
    "positions": ({"positions": "rope"}, "positions rope in the way of GPT-2; norm layernorm, qk_norm off"),
    "qk_norm": (
        {"qk_norm": True},
        "qk_norm on in the way of GPT-2; positions learned, norm layernorm, mlp gelu, bias on in the way",
    ),
    "mlp": ({"mlp": "swiglu"}, "mlp swiglu in the way of GPT-2"),
    "bias": ({"bias": False}, "bias off in the way of GPT-2"),
    "Qwen3 with biases": (QWEN3.options | {"bias": True}, "mlp swiglu in the way of GPT-2; bias on in the way of Qwen3"),
}


@pytest.mark.parametrize("name", MIXED)
def test_a_mixture_of_options_is_refused_before_anything_is_made(tmp_path, monkeypatch, capfd, name):
    options, says = MIXED[name]
    write_run(tmp_path / "run", dataclasses.replace(MODEL, **options))
    for to, destination in (("hf", tmp_path / "new" / "hf"), ("gguf", tmp_path / "new" / "m.gguf")):
        code, shown = command(monkeypatch, capfd, main, tmp_path / "run", destination, "--to", to)
        assert (code, shown.err.count("\n"), shown.out) == (2, 1, ""), shown.err
        assert "only all of GPT-2 or all of Qwen3 can be exported" in shown.err and says in shown.err, shown.err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    convert(tmp_path / "run", tmp_path / "twin", "twin")  # a twin is as good a place as any


def test_a_pt_file_is_of_gpt2_only(home, tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json")
    torch.save({"model.norm.weight": torch.ones(C)}, tmp_path / "model.bin")
    for folder in (home / "hf", home / "run" / STEP):
        shutil.copy(folder / "config.json", tmp_path / "config.json")
        with pytest.raises(InputError, match=r"is of a Qwen3 model, of GPT-2 only is a \.pt file read"):
            convert(tmp_path / "model.bin", tmp_path / "back", "twin")


def test_every_architecture_has_a_name_of_its_own():
    for values in zip(*[(a.name, a.model_type, a.class_name, a.table) for a in ARCHITECTURES], strict=True):
        assert len(set(values)) == len(ARCHITECTURES)


@pytest.mark.parametrize("preset", sorted(presets()))
def test_every_preset_can_be_exported(preset):
    expected = "Qwen3" if preset in ("fast", "best") else "GPT-2"
    assert architecture_of(presets()[preset][0], preset).name == expected
