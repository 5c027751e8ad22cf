"""nanoGPT, from a checkout that the user has: its model.py and its optimizer; compiled on CUDA, as its train.py does."""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.peer_torch import plain_loop
from benchmarks.spec import Spec
from benchmarks.work import Work
from gpt_core.errors import InputError
from gpt_core.init import initial_weights
from torch_gpt import device as devices


def open_work(spec: Spec) -> Work:
    """nanoGPT's GPT with our weights in it, biases, no dropout."""
    device = devices.pick(spec.device, spec.dtype)
    path = Path(str(spec.checkout), "model.py")
    found = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    size = spec.model
    try:
        config = module.GPTConfig(
            block_size=size.block_size,
            vocab_size=size.vocab_size,
            n_layer=size.n_layer,
            n_head=size.n_head,
            n_embd=size.n_embd,
            dropout=0.0,
            bias=True,
        )
        model = module.GPT(config).to(device)
    except (AttributeError, TypeError) as error:
        raise InputError(f"{path} has no GPT and GPTConfig as nanoGPT's: {error}") from error
    with torch.no_grad():
        for name, value in initial_weights(size, spec.train.seed).items():
            model.transformer.get_parameter(name).copy_(torch.from_numpy(value))
    train = spec.train
    optimizer = model.configure_optimizers(train.weight_decay, train.lr, (train.beta1, train.beta2), device.type)
    forward = devices.compiled(model, device)

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        mean: Tensor = forward(inputs, targets)[1]
        return mean

    return plain_loop(spec, device, model, loss, optimizer, {})
