"""weights.check: equal models pass in every tool, each with its own tolerance, and each kind of mistake is seen."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from weights_samples import SENTENCES, last_json, run_command, with_weights, write_dataset, write_run

import torch_gpt.model
from gpt_core import checkpoint, cli
from gpt_core.errors import InputError
from weights import check, engines
from weights.compare import TOLERANCE, difference
from weights.convert import convert, read
from weights.engines import mlx_twin, open_engine, torch_twin
from weights.hf_write import save_tensors
from weights.prompts import PROMPTS
from weights.table import GPT2, to_hf

TEXTS = [*SENTENCES, "الدَّارْجَة تاعنا: ١٢٣ و 456!", "a b  c\n\nd\t", "ça-va\u00a0bien… ❤️"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    write_run(folder / "run")
    convert(folder / "run", folder / "hf", "hf")
    return folder


@pytest.fixture(scope="module")
def expected(home):
    found = answers(torch_twin(home / "run"))
    lengths = [len(answer.added) for answer in found[: len(PROMPTS)]]
    assert min(lengths) >= 40 and len({tuple(answer.added[:20]) for answer in found[: len(PROMPTS)]}) > 4, (
        "greedy text that tells"
    )
    return found


def answers(engine):
    return check.answers(engine, PROMPTS, TEXTS, 96)


def telling_answers(run):
    """The PyTorch twin's answers, after a look that its greedy texts are long and all different."""
    found = answers(torch_twin(run))
    texts = [answer.added[:20] for answer in found[: len(PROMPTS)]]
    assert min(map(len, texts)) == 20 and len(set(map(tuple, texts))) == len(texts), "greedy text that tells"
    return found


def test_texts_start_with_their_own_token_wherever_it_stands(tmp_path):
    """OpenAI's <|endoftext|> is the last id; a folder whose tokenizer puts it nowhere, as theirs, is refused."""
    run = write_run(tmp_path / "run", end_last=True)
    convert(run, tmp_path / "hf", "hf")
    twin, tool = torch_twin(run), engines.transformers(tmp_path / "hf")
    last = Tokenizer.from_file(str(run / "tokenizer.json")).get_vocab_size() - 1
    assert twin.encode("") == tool.encode("") == [last] and last > 300
    texts = [(engine.greedy(SENTENCES[0], 30), engine.greedy(SENTENCES[1], 30)) for engine in (twin, tool)]
    assert texts[0] == texts[1] and max(map(len, texts[0])) == 30
    shutil.copyfile(run / "tokenizer.json", tmp_path / "hf" / "tokenizer.json")
    with pytest.raises(InputError, match=r"does not start texts with <\|endoftext\|>.*give the folder that weights.convert"):
        open_engine("hf", tmp_path / "hf")


def assert_same(apart, tolerance=TOLERANCE):
    assert apart.passes(tolerance), apart
    assert apart.same_texts == apart.texts == len(PROMPTS) + len(TEXTS)


def test_the_other_twin_is_the_same(home, expected):
    assert_same(difference(expected, answers(mlx_twin(home / "run"))))


def test_the_way_through_a_hugging_face_folder_changes_nothing(home, expected):
    apart = difference(expected, answers(torch_twin(home / "hf")))
    assert_same(apart)
    assert apart.max_logit_diff == 0


def broken_weights(name, weights):
    """Contract weights with one mistake of conversion in them."""
    changed = dict(weights)
    if name == "wrong transpose":
        changed["h.1.attn.c_proj.weight"] = weights["h.1.attn.c_proj.weight"].T.copy()
    elif name == "swapped q and k":
        q, k, v = np.split(weights["h.1.attn.c_attn.weight"], 3)
        changed["h.1.attn.c_attn.weight"] = np.concatenate([k, q, v])
    else:
        changed["h.1.mlp.c_proj.bias"] = np.zeros_like(weights["h.1.mlp.c_proj.bias"])
    return changed


@pytest.mark.parametrize("name", ["wrong transpose", "swapped q and k", "missing bias"])
def test_a_mistake_in_the_weights_exceeds_the_tolerance_ten_times(home, expected, tmp_path, name):
    weights = broken_weights(name, checkpoint.load(home / "run" / "step_000030").weights)
    apart = difference(expected, answers(torch_twin(with_weights(home / "run" / "step_000030", weights, tmp_path / "broken"))))
    assert apart.max_logit_diff > 10 * TOLERANCE["max_logit_diff"] and apart.kl_nats > 10 * TOLERANCE["kl_nats"], apart
    assert not apart.passes(TOLERANCE)


def test_a_wrong_gelu_exceeds_the_tolerance_ten_times(home, expected, monkeypatch):
    exact = torch.nn.functional.gelu
    monkeypatch.setattr(torch_gpt.model.F, "gelu", exact)
    apart = difference(expected, answers(torch_twin(home / "run")))
    assert apart.max_logit_diff > 10 * TOLERANCE["max_logit_diff"], apart
    assert not apart.passes(TOLERANCE)


def test_a_wrong_row_of_the_table_shows(home, expected, tmp_path):
    """The same through the table: a square matrix that is not marked as stored (in, out)."""
    table = tuple(row._replace(conv1d=row.conv1d and "attn.c_proj" not in row.twin) for row in GPT2)
    folder = shutil.copytree(home / "hf", tmp_path / "hf")
    source = read(home / "run")
    save_tensors(to_hf(source.weights, source.model, table), folder / "model.safetensors")
    assert difference(expected, answers(torch_twin(folder))).max_logit_diff > 10 * TOLERANCE["max_logit_diff"]


def test_the_command_ends_with_0_1_or_2(home, tmp_path, monkeypatch, capfd):
    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["check", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.run(check.main)
        return end.value.code, capfd.readouterr()

    data = write_dataset(tmp_path / "data", home / "run" / "step_000030" / "tokenizer.json")
    same = run_command("weights.check", home / "run", home / "run" / "step_000030", "--data", data)
    assert same.returncode == 0, same.stderr
    result = last_json(same.stdout)
    assert (result["passed"], result["max_logit_diff"], result["rows"]) == (True, 0.0, 20)
    weights = broken_weights("missing bias", checkpoint.load(home / "run" / "step_000030").weights)
    broken = with_weights(home / "run" / "step_000030", weights, tmp_path / "broken")
    code, shown = command(home / "run", broken)
    assert code == 1 and last_json(shown.out)["passed"] is False
    (tmp_path / "no.gguf").write_bytes(b"GGUF nothing")
    for path in (tmp_path / "nowhere", data, tmp_path / "no.gguf"):
        code, shown = command(home / "run", path)
        assert (code, shown.err.count("\n"), shown.out) == (2, 1, ""), shown.err


def test_a_missing_tool_is_named(home, monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(InputError, match="pip install llama-cpp-python"):
        open_engine("gguf", home / "m.gguf")
    with pytest.raises(InputError, match="pip install transformers or mlx-lm"):
        open_engine("hf", home / "hf")


def import_tool(name):
    """The module of an optional tool, or a skip; its own import-time warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def quiet(action):
    """Runs third-party code whose warnings are not ours to fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return action()


def test_transformers_gives_the_same(home, expected):
    import_tool("transformers")
    assert_same(difference(expected, quiet(lambda: answers(engines.transformers(home / "hf")))))


def test_transformers_loads_the_folder_without_flags(home, expected):
    tools = import_tool("transformers")
    tools.utils.logging.disable_progress_bar()
    write = quiet(lambda: tools.pipeline("text-generation", model=str(home / "hf")))
    assert write.model.dtype == torch.float32 and write.model.generation_config.suppress_tokens[-1] == 639
    written = quiet(lambda: write(PROMPTS[1], do_sample=False, max_new_tokens=20))[0]["generated_text"]
    tokenizer = tools.AutoTokenizer.from_pretrained(home / "hf")
    assert written == PROMPTS[1] + tokenizer.decode(expected[1].added[:20])
    assert tokenizer("خبز")["input_ids"][0] == 0 and (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 0)


def test_transformers_never_chooses_a_padding_token(home, tmp_path):
    """Even where the padding's logits are the highest: its rows of the embedding are set to those of the likeliest token."""
    tools = import_tool("transformers")
    weights = dict(checkpoint.load(home / "run" / "step_000030").weights)
    weights["wte.weight"] = weights["wte.weight"].copy()
    used = read(home / "run").model.vocab_size - len(
        json.loads((home / "hf/generation_config.json").read_text())["suppress_tokens"]
    )
    weights["wte.weight"][used:] = 3 * weights["wte.weight"][used - 1]
    convert(with_weights(home / "run" / "step_000030", weights, tmp_path / "run"), tmp_path / "hf", "hf")
    model = tools.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    ids = quiet(lambda: model.generate(torch.tensor([[0, 5]]), do_sample=False, max_new_tokens=40))[0]
    assert int(ids.max()) < used


def test_saving_with_transformers_and_coming_back_changes_no_byte(home, tmp_path):
    tools = import_tool("transformers")
    for tool in (tools.AutoModelForCausalLM, tools.AutoTokenizer):
        quiet(lambda tool=tool: tool.from_pretrained(home / "hf").save_pretrained(tmp_path / "saved"))
    convert(tmp_path / "saved", tmp_path / "back", "twin")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "back" / name).read_bytes() == (home / "run" / "step_000030" / name).read_bytes(), name


def test_mlx_lm_gives_the_same(home, expected):
    import_tool("mlx_lm")
    assert_same(difference(expected, quiet(lambda: answers(engines.mlx_lm(home / "hf")))))


@pytest.mark.parametrize(("bits", "limit"), [(8, 0.3), (4, 4.0)])
def test_mlx_lm_quantizes_the_folder(home, expected, tmp_path, bits, limit):
    """`mlx_lm.convert -q`. Measured on these weights: largest logit difference 0.07 for 8 bits, 1.1 for 4."""
    import_tool("mlx_lm")
    done = run_command("mlx_lm", "convert", "--hf-path", home / "hf", "--mlx-path", tmp_path / "q", "-q", "--q-bits", bits)
    assert done.returncode == 0, done.stderr
    apart = difference(expected, quiet(lambda: answers(engines.mlx_lm(tmp_path / "q"))))
    assert apart.same_tokens and TOLERANCE["max_logit_diff"] < apart.max_logit_diff < limit, apart
    assert check.kind_to_run(tmp_path / "q") == "quantized"
    with pytest.raises(InputError, match="quantized"):
        convert(tmp_path / "q", tmp_path / "back", "twin")


@pytest.fixture(scope="module")
def gguf_file(home):
    pytest.importorskip("gguf")
    convert(home / "run", home / "model.gguf", "gguf")
    return home / "model.gguf"


def test_the_gguf_file_leaves_the_padding_out(home, gguf_file):
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(gguf_file)
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    source = read(home / "run")
    used = len(json.loads(source.tokenizer)["model"]["vocab"])
    assert shapes["token_embd.weight"] == [64, used] and used < 640
    assert shapes["blk.1.ffn_up.weight"] == [64, 256] and len(shapes) == len(source.weights)
    assert reader.fields["tokenizer.ggml.pre"].contents() == "gpt-2"


def test_llama_cpp_gives_the_same(gguf_file, expected):
    """Its GELU goes through a half-precision table: measured 2.0e-3 on these weights, 2.5e-3 on 93M ones."""
    pytest.importorskip("llama_cpp")
    found = answers(engines.llama_cpp(gguf_file))
    assert_same(difference(expected, found), check.GGUF_TOLERANCE)


def test_llama_cpp_splits_texts_as_the_tokenizer_does(home, gguf_file):
    pytest.importorskip("llama_cpp")
    mine, theirs = torch_twin(home / "run"), engines.llama_cpp(gguf_file)
    alphabet = "".join(
        map(chr, [*range(0x20, 0x7F), *range(0xA0, 0x180), *range(0x600, 0x700), 0x200C, 0x2026, 0x1F600, 10, 9])
    )
    draw = np.random.default_rng(0)
    texts = [*TEXTS, *("".join(draw.choice(list(alphabet + "     " * 20), size=40)) for _ in range(300))]
    differing = [text for text in texts if mine.encode(text) != theirs.encode(text)]
    theirs.close()
    assert not differing, f"{len(differing)} of {len(texts)}: {differing[:3]!r}"
