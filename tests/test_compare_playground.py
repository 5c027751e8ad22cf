"""The playground: both twins in turns, and the page in a browser."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compare_samples import record, write_run

pytest.importorskip("mlx_gpt", reason="the playground needs MLX")
pytest.importorskip("torch", reason="the playground needs PyTorch")

from compare import browser
from compare.duet import NEXT_TOKENS, Duet
from compare.screenshots import continue_prompt, playground
from compare.sides import load_twins
from gpt_core import checkpoint
from gpt_core.generation import generate
from gpt_core.sampling import Sampling
from gpt_core.tokens import load_tokenizer

PROMPT = "رحت la plage مع صحابي"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("playground") / "run", [record(1)])


@pytest.fixture(scope="module")
def duet(run):
    loaded = checkpoint.load(checkpoint.find(run, "--checkpoint"), moments=False)
    return Duet(load_twins("cpu"), loaded, load_tokenizer(loaded.folder / checkpoint.TOKENIZER))


def test_both_write_what_generate_writes(duet):
    seen = list(duet.write(PROMPT, Sampling(0.8, top_k=20), 25, seed=3))
    torch, mlx = seen[-1]
    assert torch.done and mlx.done and torch.ids == mlx.ids
    forward, read = duet._forwards[0], duet._read(PROMPT)
    assert torch.ids == list(generate(forward, read, Sampling(0.8, top_k=20), 25, duet._used, duet._block_size, 3))


def test_they_take_turns(duet):
    for torch, mlx in duet.write(PROMPT, Sampling(0.0), 10, seed=0):
        assert abs(len(torch.ids) - len(mlx.ids)) <= 1


def test_next_tokens_are_the_likeliest_first_and_equal_in_both(duet):
    found = duet.next_tokens(PROMPT, Sampling(1.0))
    first = [token.probabilities[0] for token in found]
    assert len(found) == NEXT_TOKENS and first == sorted(first, reverse=True)
    np.testing.assert_allclose(first, [token.probabilities[1] for token in found], rtol=1e-4)
    assert len(duet.next_tokens(PROMPT, Sampling(0.0))) == 1
    assert len(duet.next_tokens("", Sampling(1.0, top_k=3))) == 3


def test_a_text_longer_than_the_context_is_cut(duet):
    assert duet.next_tokens(PROMPT * 40, Sampling(1.0)) and list(duet.write(PROMPT * 40, Sampling(1.0), 2, 0))


def gradio_missing():
    try:
        import gradio  # noqa: F401
    except ImportError:
        return "the package gradio (pip install -r requirements-tools.txt)"
    return browser.missing()


@pytest.mark.skipif(gradio_missing() is not None, reason=f"the page needs {gradio_missing()}")
@pytest.mark.parametrize("width", [380, 1200])
def test_typing_shows_both_continuations(run, width):
    with playground(run) as url, browser.chromium(width) as driver:
        continue_prompt(driver, url, PROMPT)
        texts = [driver.find_element("css selector", f"#text-{name} .darija") for name in ("pytorch", "mlx")]
        assert texts[0].text == texts[1].text and texts[0].text.startswith(PROMPT)
        assert all(text.get_attribute("dir") == "rtl" for text in texts)
        assert texts[1].find_element("css selector", "bdi").text == "la plage"
        assert "the same" in driver.find_element("id", "verdict").text
        assert driver.find_element("css selector", "#prompt textarea").get_attribute("dir") == "rtl"
        assert len(driver.find_elements("css selector", "#next tr")) == NEXT_TOKENS + 1
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        requests = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        asked = {r["params"]["request"]["url"] for r in requests if r["method"] == "Network.requestWillBeSent"}
        assert not [a for a in asked if not a.startswith((url, "data:", "blob:", "chrome:", "chrome-untrusted:"))]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--checkpoint", "nowhere", "--port", "80"], "--port 80"),
        ([], "--checkpoint"),
    ],
)
def test_bad_input_is_one_line_and_2(tmp_path, arguments, expected):
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-m", "compare.playground", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 2 and expected in done.stderr and done.stderr.count("\n") == 1


def test_without_gradio_it_says_what_to_install(run):
    code = (
        "import sys; sys.modules['gradio'] = None\nfrom compare.playground import main\nfrom gpt_core.cli import run; run(main)"
    )
    command = [sys.executable, "-c", code, "--checkpoint", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "requirements-tools.txt" in done.stderr and done.stderr.count("\n") == 1
