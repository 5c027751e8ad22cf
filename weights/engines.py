"""The programs that run a model, each through its own tokenizer and its own greedy generation."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from gpt_core.errors import InputError
from gpt_core.generation import generate
from gpt_core.sampling import Sampling
from gpt_core.tokens import END_OF_TEXT
from weights.architectures import named
from weights.convert import read


@dataclass(frozen=True)
class Engine:
    """A loaded model. Every text starts with <|endoftext|>, which `encode` puts there."""

    name: str
    block_size: int
    encode: Callable[[str], list[int]]
    logits: Callable[[list[int]], np.ndarray]
    """Token ids -> logits (T, V) float32."""
    greedy: Callable[[str, int], list[int]]
    """(text, most tokens) -> the ids that it adds, <|endoftext|> not among them."""
    close: Callable[[], None] = lambda: None
    coarse: bool = False
    """Whether it computes GELU through a table in half precision."""


def torch_twin(path: Path) -> Engine:
    """torch_gpt on the CPU, for everything that `weights.convert` reads."""
    from torch_gpt.generate import make_forward
    from torch_gpt.model import GPT, torch
    from torch_gpt.state import load_weights

    source = read(path)
    model = GPT(source.model)
    load_weights(model, source.weights)
    forward = make_forward(model, torch.device("cpu"))

    @torch.no_grad()
    def logits(ids: list[int]) -> np.ndarray:
        return model(torch.tensor([ids]))[0].numpy()

    return _twin("torch_gpt", source, logits, forward)


def mlx_twin(path: Path) -> Engine:
    """mlx_gpt, for everything that `weights.convert` reads."""
    from mlx_gpt.generate import make_forward
    from mlx_gpt.model import GPT, mx
    from mlx_gpt.state import load_weights

    source = read(path)
    model = GPT(source.model)
    load_weights(model, source.weights)
    return _twin("mlx_gpt", source, lambda ids: np.array(model(mx.array([ids]))[0]), make_forward(model))


def transformers(path: Path) -> Engine:
    """A Hugging Face folder in transformers, in float32."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the folder is here: nothing is to be asked of the hub
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)  # nosec B615
    model: Any = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=torch.float32)  # nosec B615

    @torch.no_grad()
    def logits(ids: list[int]) -> np.ndarray:
        return model(torch.tensor([ids])).logits[0].numpy()

    def greedy(text: str, count: int) -> list[int]:
        given = tokenizer(text, return_tensors="pt")
        ids = model.generate(**given, do_sample=False, max_new_tokens=count)[0, given["input_ids"].shape[1] :].tolist()
        return until(ids, tokenizer.eos_token_id)

    context = getattr(model.config, named(model.config.model_type, str(path)).context_key)
    _refuse_without_start(tokenizer("")["input_ids"], tokenizer.bos_token_id, path)
    return Engine("transformers", context, lambda text: tokenizer(text)["input_ids"], logits, greedy)


def mlx_lm(path: Path) -> Engine:
    """A Hugging Face folder in mlx-lm, quantized ones of `mlx_lm.convert` too."""
    from mlx_gpt.model import mx  # through the twin, which sees to fast matrix products on a CPU
    from mlx_lm import load, stream_generate  # isort: skip

    model, tokenizer = load(str(path))[:2]

    def logits(ids: list[int]) -> np.ndarray:
        return np.array(model(mx.array([ids]))[0].astype(mx.float32))

    def greedy(text: str, count: int) -> list[int]:
        ids = [response.token for response in stream_generate(model, tokenizer, prompt=text, max_tokens=count)]
        return until(ids, tokenizer.eos_token_id)

    context = getattr(model.args, named(model.args.model_type, str(path)).context_key)
    _refuse_without_start(tokenizer.encode(""), tokenizer.bos_token_id, path)
    return Engine("mlx_lm", context, tokenizer.encode, logits, greedy)


def llama_cpp(path: Path) -> Engine:
    """A GGUF file in llama.cpp, with a float32 cache."""
    from llama_cpp import GGML_TYPE_F32, Llama

    model: Any = Llama(
        str(path), n_ctx=0, logits_all=True, verbose=False, type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32, n_gpu_layers=0
    )

    def logits(ids: list[int]) -> np.ndarray:
        model.reset()
        model.eval(ids)
        return np.array(model.scores[: len(ids)], dtype=np.float32)

    def encode(text: str) -> list[int]:
        return model.tokenize(text.encode(), add_bos=True, special=False)

    def greedy(text: str, count: int) -> list[int]:
        ids = list(islice(model.generate(encode(text), temp=0.0, repeat_penalty=1.0), count))
        return until(ids, model.token_eos())

    architecture = named(model.metadata["general.architecture"], str(path), "gguf_name")
    context = int(model.metadata[f"{architecture.gguf_name}.context_length"])
    coarse = architecture.options["mlp"] == "gelu"
    return Engine("llama_cpp", context, encode, logits, greedy, model.close, coarse)


ENGINES: dict[str, dict[str, Callable[[Path], Engine]]] = {
    "twin": {"torch": torch_twin, "mlx": mlx_twin},
    "torch": {"torch": torch_twin},
    "hf": {"transformers": transformers, "mlx_lm": mlx_lm},
    "quantized": {"mlx_lm": mlx_lm},
    "gguf": {"llama_cpp": llama_cpp},
}
"""What runs each format: package -> engine, in the order in which they are tried."""


def open_engine(kind: str, path: Path) -> Engine:
    """The first engine for a format whose package is installed. Raises InputError."""
    engines = ENGINES[kind]
    there = [package for package in engines if importlib.util.find_spec(package)]
    if not there:
        names = " or ".join(package.replace("_", "-") for package in engines)
        raise InputError(f"{path} needs a package that runs it: pip install {names.replace('llama-cpp', 'llama-cpp-python')}")
    try:
        return engines[there[0]](path)
    except InputError:
        raise
    except Exception as error:  # whatever the tool raises for a model that it does not take
        raise InputError(f"{path} does not load in {there[0]}: {type(error).__name__}: {str(error)[:200]}") from error


def until(ids: list[int], end: int) -> list[int]:
    """What stands before `end`."""
    return ids[: ids.index(end)] if end in ids else ids


def _refuse_without_start(ids: list[int], start: int, path: Path) -> None:
    if ids != [start]:
        raise InputError(
            f"{path} has a tokenizer that does not start texts with <|endoftext|>, as models here are trained: give the folder "
            "that weights.convert --to hf makes of it"
        )


def _twin(name: str, source: Any, logits: Callable[[list[int]], np.ndarray], forward: Any) -> Engine:
    tokenizer = Tokenizer.from_str(source.tokenizer)
    tokenizer.encode_special_tokens = True
    end = int(tokenizer.token_to_id(END_OF_TEXT) or 0)

    def encode(text: str) -> list[int]:
        return [end, *tokenizer.encode(text, add_special_tokens=False).ids]

    def greedy(text: str, count: int) -> list[int]:
        used, block_size = tokenizer.get_vocab_size(), source.model.block_size
        return list(generate(forward, encode(text)[1:], Sampling(temperature=0), count, used, block_size, 0, end))

    return Engine(name, source.model.block_size, encode, logits, greedy)
