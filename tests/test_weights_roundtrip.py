"""Twin checkpoints and Hugging Face folders: nothing changes on the way, and what does not fit is refused."""

import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from weights_samples import MODEL, last_json, run_command, write_dataset, write_run

from gpt_core import checkpoint
from gpt_core.errors import InputError
from gpt_core.files import sha256
from gpt_core.metrics import FIELDS
from gpt_core.names import parameters
from weights.convert import convert, read
from weights.table import GPT2, rows


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def hf(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "hf"
    convert(run, folder, "hf")
    return folder


@pytest.fixture
def copy(hf, tmp_path):
    return shutil.copytree(hf, tmp_path / "copy")


def edit(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "absent"}), encoding="utf-8")


def test_the_table_has_every_parameter_once_under_every_name():
    filled = rows(GPT2, MODEL.n_layer)
    assert {row.twin for row in filled} == {parameter.name for parameter in parameters(MODEL)}
    for names in zip(*[(row.twin, row.hf, row.gguf) for row in filled], strict=True):
        assert len(set(names)) == len(filled)
    matrices = {p.name for p in parameters(MODEL) if len(p.shape) == 2 and "wte" not in p.name and "wpe" not in p.name}
    assert {row.twin for row in filled if row.conv1d} == matrices


def test_twin_to_hf_to_twin_gives_the_same_bytes(run, hf, tmp_path):
    convert(hf, tmp_path / "back", "twin")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "back" / name).read_bytes() == (run / name).read_bytes()
    before, after = (json.loads((folder / "state.json").read_text()) for folder in (run, tmp_path / "back"))
    assert [before[key] for key in ("step", "manifest_sha256")] == [after[key] for key in ("step", "manifest_sha256")]
    assert checkpoint.load(tmp_path / "back").moments == {}


def test_the_folder_has_what_transformers_and_mlx_lm_need(run, hf):
    with safe_open(hf / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == {row.hf for row in rows(GPT2, MODEL.n_layer)}
        assert file.get_slice("h.0.attn.c_attn.weight").get_shape() == [64, 192]
    config = json.loads((hf / "config.json").read_text())
    assert (config["n_ctx"], config["n_positions"], config["bos_token_id"], config["eos_token_id"]) == (96, 96, 0, 0)
    assert (config["activation_function"], config["tie_word_embeddings"]) == ("gelu_new", True)
    used = 640 - len(json.loads((hf / "generation_config.json").read_text())["suppress_tokens"])
    assert used == len(json.loads((run / "tokenizer.json").read_text())["model"]["vocab"])


def test_the_card_tells_what_the_run_recorded(run, tmp_path):
    data = write_dataset(tmp_path / "data", run / "tokenizer.json")
    trained = write_run(tmp_path / "run", manifest=sha256(data / "manifest.json"))
    first = dict.fromkeys(FIELDS, 1.0) | {"step": 10, "loss": 4.0, "val_loss": 5.0, "val_bpb": 2.5, "val_bpb_stream": 2.25}
    records = [first, dict.fromkeys(FIELDS, 1.0) | {"step": 11}]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    convert(trained, tmp_path / "bare", "hf")
    assert "Corpus: not recorded" in (tmp_path / "bare" / "README.md").read_text()
    shutil.copy(data / "manifest.json", tmp_path / "run" / "manifest.json")
    convert(tmp_path / "run", tmp_path / "full", "hf")
    text = (tmp_path / "full" / "README.md").read_text()
    for part in (
        "sample corpus of Darija GPT",
        "| train | 60 |",
        "30 steps of 192 tokens",
        "at step 10: 2.5000 bits",
        "4.0000",
    ):
        assert part in text, part


def test_the_licence_is_that_of_the_dataset_on_the_hub(run, tmp_path):
    data = write_dataset(tmp_path / "data", run / "tokenizer.json")
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["source"] = {"name": "hub", "dataset": "someone/rows", "split": "v1", "revision": "abc"}
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    trained = write_run(folder / "made", manifest=sha256(folder / "manifest.json"))
    shutil.copy(folder / "manifest.json", folder / "made" / "manifest.json")
    convert(trained, tmp_path / "hf", "hf")
    text = (tmp_path / "hf" / "README.md").read_text()
    assert text.startswith("---\n") and "license: cc-by-4.0\ndatasets:\n- someone/rows\n" in text and "CC BY 4.0" in text


def test_shards_are_read(run, copy, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    placed: dict[str, str] = {}
    for number, part in enumerate((names[:5], names[5:])):
        save_file({name: tensors[name] for name in part}, copy / f"model-{number}.safetensors", metadata={"format": "pt"})
        placed |= dict.fromkeys(part, f"model-{number}.safetensors")
    (copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    convert(copy, tmp_path / "back", "twin")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("dtype", "bits"), [("F16", 10), ("BF16", 7)])
def test_half_precision_is_read_to_its_last_bit(run, copy, dtype, bits):
    """2^-(mantissa bits + 1) is the largest relative rounding error; bfloat16 is cut here, so twice that."""
    header, data, position = {}, b"", 0
    for name, array in load_file(copy / "model.safetensors").items():
        raw = array.astype("<f2").tobytes() if dtype == "F16" else (array.view("<u4") >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [position, position + len(raw)]}
        data, position = data + raw, position + len(raw)
    text = json.dumps(header).encode()
    (copy / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    exact = checkpoint.load(run).weights
    for name, array in read(copy).weights.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, exact[name], rtol=2.0**-bits, atol=1e-7)


@pytest.mark.parametrize("mask", [np.float32, np.uint8, np.bool_])
def test_openais_layout_is_read(run, copy, tmp_path, mask):
    """With causal masks in each dtype that transformers stored them in."""
    tensors = {f"transformer.{name}": array for name, array in load_file(copy / "model.safetensors").items()}
    for layer in range(2):
        tensors[f"transformer.h.{layer}.attn.bias"] = np.ones((1, 1, 96, 96), dtype=mask)
        tensors[f"transformer.h.{layer}.attn.masked_bias"] = np.full((1,), -1e4, dtype=np.float32)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    save_file(tensors, copy / "model.safetensors")
    edit(copy, darija_gpt="absent", dtype="absent", tie_word_embeddings="absent", pad_token_id="absent")
    convert(copy, tmp_path / "back", "twin")
    back = checkpoint.load(tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert (back.step, back.manifest_sha256) == (0, "")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"activation_function": "gelu"}, "activation_function 'gelu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon 1e-06"),
        ({"n_inner": 128}, "n_inner 128"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"model_type": "llama"}, "model_type 'llama'"),
        ({"quantization": {"bits": 4}}, "quantized"),
        ({"vocab_size": 70_000}, "70000"),
        ({"vocab_size": 300}, "more than the 300"),
        ({"n_layer": 10**9}, "2 layers, its config says 1000000000"),
        ({"n_head": 5}, "not a multiple"),
        ({"n_positions": 128}, "wpe.weight of shape [96, 64], its config says [128, 64]"),
        ({"darija_gpt": {"step": 1}}, "broken record"),
    ],
)
def test_what_the_twins_would_compute_otherwise_is_refused(copy, tmp_path, changes, named):
    edit(copy, **changes)
    with pytest.raises(InputError) as error:
        convert(copy, tmp_path / "back", "twin")
    assert named in str(error.value)
    assert not (tmp_path / "back").exists()


def test_names_left_over_on_either_side_are_listed(copy, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    tensors["h.1.mlp.gate.weight"] = tensors.pop("h.1.mlp.c_fc.bias")
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(InputError, match=r"missing h\.1\.mlp\.c_fc\.bias; left over h\.1\.mlp\.gate\.weight"):
        convert(copy, tmp_path / "back", "twin")


def test_an_untied_head_is_refused(copy, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    save_file(tensors | {"lm_head.weight": tensors["wte.weight"] + 1}, copy / "model.safetensors")
    with pytest.raises(InputError, match=r"lm_head\.weight other than wte\.weight"):
        convert(copy, tmp_path / "back", "twin")


def test_a_destination_is_not_destroyed(run, hf, tmp_path):
    other = tmp_path / "home"
    other.mkdir()
    (other / "letter.txt").write_text("keep")
    another = write_run(tmp_path / "another").parent
    for target, overwrite, named in (
        (another, True, "other things"),
        (hf, False, "--overwrite"),
        (other, True, "other things"),
        (run.parent, True, "holds the source"),
    ):
        with pytest.raises(InputError, match=named):
            convert(run, target, "hf", overwrite)
    assert (other / "letter.txt").read_text() == "keep"
    again = shutil.copytree(hf, tmp_path / "again")
    convert(run, again, "hf", overwrite=True)
    convert(hf, again, "twin", overwrite=True)
    convert(hf, again, "twin", overwrite=True)  # an earlier conversion, though it is a checkpoint
    for source in (run.parent, hf):
        with pytest.raises(InputError, match="is or holds the source" if source == run.parent else "that a training run wrote"):
            convert(source, run, "hf", overwrite=True)
    assert checkpoint.load(run).moments
    with pytest.raises(InputError, match="step_000030"):
        convert(hf, tmp_path / "step_000099", "twin")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "another", "home"]


def test_the_command_needs_no_framework(run, tmp_path):
    blocked = ("torch", "mlx", "mlx.core", "transformers", "gguf", "mlx_lm", "llama_cpp")
    first = run_command("weights.convert", run, tmp_path / "hf", "--to", "hf", blocked=blocked)
    second = run_command("weights.convert", tmp_path / "hf", tmp_path / "twin", "--to", "twin", blocked=blocked)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert last_json(second.stdout)["step"] == 30
    third = run_command("weights.convert", run, tmp_path / "m.gguf", "--to", "gguf", blocked=blocked)
    assert (third.returncode, third.stderr) == (2, "error: --to gguf needs the package gguf: pip install gguf\n")
    (tmp_path / "ckpt.pt").write_bytes(b"x")
    fourth = run_command("weights.convert", tmp_path / "ckpt.pt", tmp_path / "t", "--to", "twin", blocked=blocked)
    assert fourth.returncode == 2 and "pip install torch" in fourth.stderr and fourth.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt.pt", "hf", "twin"]
