"""Every architecture: on the way to every tool and back, which options each is, and that mixtures are refused."""

import dataclasses
import json
import shutil
from typing import Any

import pytest
import torch
from test_weights_check import answers, assert_same, import_tool, quiet, telling_answers
from weights_samples import MODEL, NEOX, QWEN, TRAIN, command, write_exported, write_run, write_tokenizer

from gpt_core.config import GPTConfig, presets
from gpt_core.errors import InputError
from gpt_core.names import parameters
from weights import engines
from weights.architectures import ARCHITECTURES, GPT2, GPT_NEOX, QWEN3, architecture_of
from weights.check import GGUF_TOLERANCE
from weights.compare import TOLERANCE, difference
from weights.convert import convert, main
from weights.engines import mlx_twin
from weights.table import rows

MODELS = {GPT_NEOX.name: NEOX, QWEN3.name: QWEN}
L, STEP = QWEN.n_layer, "step_000030"


@pytest.fixture(scope="module", params=MODELS)
def home(request, tmp_path_factory):
    return write_exported(tmp_path_factory.mktemp(request.param), MODELS[request.param], seed=4)


@pytest.fixture(scope="module")
def expected(home):
    return telling_answers(home / "run")


@pytest.mark.parametrize(("architecture", "model"), [(GPT2, MODEL), (GPT_NEOX, NEOX), (QWEN3, QWEN)])
def test_an_architecture_chooses_every_option_and_names_every_parameter(architecture, model):
    options = {item.name for item in dataclasses.fields(GPTConfig)} - set(architecture.fields.values())
    assert set(architecture.options) == options
    filled = rows(architecture.table, model.n_layer)
    assert {row.twin for row in filled} == {parameter.name for parameter in parameters(model)}
    for names in zip(*[((row.twin, row.third), row.hf, row.gguf) for row in filled], strict=True):
        assert len(set(names)) == len(filled)


def test_the_card_names_muon_and_noise(home, tmp_path):
    told = "Muon, learning rate 0.03, for the matrices of the layers; AdamW"
    train = dataclasses.replace(TRAIN, optimizer="muon", muon_lr=0.03, dropout=0.15, token_noise=0.05, document_mask=True)
    convert(write_run(tmp_path / "run", QWEN, train=train), tmp_path / "hf", "hf")
    texts = [(folder / "hf" / "README.md").read_text(encoding="utf-8") for folder in (tmp_path, home)]
    for part in (told, "dropout 0.15;", "token noise 0.05;", "rows packed whole, none sees another;"):
        assert part in texts[0] and part not in texts[1], part


@pytest.mark.parametrize(("architecture", "prefix"), [(GPT2, "transformer."), (GPT_NEOX, ""), (QWEN3, "")])
def test_llama_cpps_own_map_of_names_is_ours(architecture, prefix):
    gguf = pytest.importorskip("gguf")
    kind = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture.gguf_name)
    theirs = gguf.get_tensor_name_map(kind, L)
    for row in rows(architecture.table, L):
        assert theirs.get_name(prefix + row.hf, try_suffixes=(".weight", ".bias")) == row.gguf


def test_the_other_twin_gives_the_same(home, expected):
    """Measured: GPT-NeoX 3.9e-6, Qwen3 6.6e-6."""
    assert_same(difference(expected, answers(mlx_twin(home / "run"))))


def test_twin_to_hf_to_twin_gives_the_same_bytes(home, tmp_path):
    convert(home / "hf", tmp_path / "back", "twin")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "back" / name).read_bytes() == (home / "run" / STEP / name).read_bytes()


def test_transformers_gives_the_same(home, expected):
    """Measured: GPT-NeoX 2.6e-6, Qwen3 4.6e-6."""
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
    """Measured: GPT-NeoX 3.6e-6, Qwen3 7.1e-6."""
    import_tool("mlx_lm")
    assert_same(difference(expected, quiet(lambda: answers(engines.mlx_lm(home / "hf")))))


def test_llama_cpp_gives_the_same(home, expected):
    """Measured: Qwen3 7.7e-6; GPT-NeoX 2.2e-3 and 8.2e-8 nats, its GELU through a table in half precision."""
    pytest.importorskip("gguf")
    pytest.importorskip("llama_cpp")
    convert(home / "run", home / "model.gguf", "gguf")
    engine = engines.llama_cpp(home / "model.gguf")
    assert engine.coarse == ("GPT-NeoX" in home.name)
    apart = difference(expected, answers(engine))
    assert apart.passes(GGUF_TOLERANCE if engine.coarse else TOLERANCE), apart


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


MIXED: dict[str, tuple[dict[str, Any], str]] = {
    "norm": (
        {"norm": "rmsnorm"},
        "norm rmsnorm in the way of GPT-2; positions learned, norm rmsnorm in the way of GPT-NeoX; positions learned,",
    ),
    "qk_norm": (
        {"qk_norm": True},
        "qk_norm on in the way of GPT-2; positions learned, qk_norm on in the way of GPT-NeoX; positions learned, norm",
    ),
    "mlp": ({"mlp": "swiglu"}, "mlp swiglu in the way of GPT-2"),
    "bias": ({"bias": False}, "bias off in the way of GPT-2"),
    "Qwen3 with biases": (QWEN3.options | {"bias": True}, "bias on in the way of Qwen3"),
}


@pytest.mark.parametrize("name", MIXED)
def test_a_mixture_of_options_is_refused_before_anything_is_made(tmp_path, monkeypatch, capfd, name):
    options, says = MIXED[name]
    write_run(tmp_path / "run", dataclasses.replace(MODEL, **options))
    for to, destination in (("hf", tmp_path / "new" / "hf"), ("gguf", tmp_path / "new" / "m.gguf")):
        code, shown = command(monkeypatch, capfd, main, tmp_path / "run", destination, "--to", to)
        assert (code, shown.err.count("\n"), shown.out) == (2, 1, ""), shown.err
        assert "only all those of one of GPT-2, GPT-NeoX, Qwen3 can be exported" in shown.err and says in shown.err, shown.err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    convert(tmp_path / "run", tmp_path / "twin", "twin")  # a twin is as good a place as any


def test_a_pt_file_is_of_gpt2_only(home, tmp_path):
    write_tokenizer(tmp_path / "tokenizer.json")
    torch.save({"model.norm.weight": torch.ones(5)}, tmp_path / "model.bin")
    for folder in (home / "hf", home / "run" / STEP):
        shutil.copy(folder / "config.json", tmp_path / "config.json")
        with pytest.raises(InputError, match=r"is of a (Qwen3|GPT-NeoX) model, of GPT-2 only is a \.pt file read"):
            convert(tmp_path / "model.bin", tmp_path / "back", "twin")


def test_every_architecture_has_a_name_of_its_own():
    for values in zip(*[(a.name, a.model_type, a.gguf_name, a.class_name, a.table) for a in ARCHITECTURES], strict=True):
        assert len(set(values)) == len(ARCHITECTURES)


@pytest.mark.parametrize("preset", sorted(presets()))
def test_every_preset_can_be_exported(preset):
    expected = {"fast": "GPT-NeoX", "best": "Qwen3"}.get(preset, "GPT-2")
    assert architecture_of(presets()[preset][0], preset).name == expected
