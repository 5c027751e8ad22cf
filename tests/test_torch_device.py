"""What torch_gpt does for a CPU: bfloat16 products by float32 units, casts kept for a step, memory kept between steps."""

import platform
import subprocess
import sys
import weakref
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import ROOT
from torch.profiler import profile
from twins import CONFIG, CPU, B, T, batch, fresh, scaled_up, torch_twin

import torch_gpt.device as devices
import torch_gpt.rounded
from gpt_core.checkpoint import Arrays
from gpt_core.config import TrainConfig
from gpt_core.errors import InputError
from torch_gpt import functional
from torch_gpt.functional import gelu
from torch_gpt.model import GPT
from torch_gpt.recompute import linear_of_gelu
from torch_gpt.rounded import RoundedProducts, rounded

AMX, INTEL, AMD, OLD_AMD, ARM = (
    {"architecture": "x86_64", "amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel(R) Xeon(R)"},
    {"architecture": "x86_64", "amx_bf16": False, "avx512_bf16": True, "cpu_name": "Intel(R) Xeon(R)"},
    {"architecture": "x86_64", "amx_bf16": False, "avx512_bf16": True, "cpu_name": "AMD EPYC"},
    {"architecture": "x86_64", "amx_bf16": False, "avx512_bf16": False, "cpu_name": "AMD EPYC"},
    {"architecture": "aarch64"},
)
# Largest difference over the largest value, against float64 of the rounded matrices: 1.5e-7. Unrounded ones give 2e-3.
ROUNDED_TOLERANCE = 2e-6


def test_rounding_by_hand() -> None:
    """bfloat16 has 8 significant bits: above 1 they are 2^-7 apart, and a tie goes to the even one."""
    given = torch.tensor([1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 3 * 2**-9])
    assert rounded(given).tolist() == [1.0, 1.0, 1 + 2**-6, -1 - 2**-7]


@pytest.mark.parametrize("shape", [(4, 7), (2, 4, 7)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [3072, 2])
def test_a_rounded_linear_layer_is_that_of_rounded_matrices(
    shape: tuple[int, ...], biased: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five rows in one piece, and in pieces of two, two and one."""
    monkeypatch.setattr(torch_gpt.rounded, "ROWS", rows)
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=generator, requires_grad=True) for size in (shape, (5, 7), (5,)))
    gradient = torch.randn(*shape[:-1], 5, generator=generator)
    with RoundedProducts():
        y = F.linear(x, weight, bias if biased else None)
    y.backward(gradient)

    def expected(cut: Any) -> list[torch.Tensor]:
        a, w, g = (cut(values.detach()).double() for values in (x, weight, gradient))
        flat, of_y = a.reshape(-1, 7), g.reshape(-1, 5)
        return [a @ w.T + (bias.detach().double() if biased else 0), g @ w, of_y.T @ flat]

    assert y.dtype == torch.float32
    if biased:  # a sum, not a product: not rounded
        torch.testing.assert_close(bias.grad, gradient.reshape(-1, 5).sum(0))
    found = [y.detach(), x.grad, weight.grad]
    for value, right, unrounded in zip(found, expected(rounded), expected(lambda values: values), strict=True):
        assert value is not None and value.shape == right.shape
        assert (value - right).abs().max() < ROUNDED_TOLERANCE * right.abs().max()
        assert (value - unrounded).abs().max() > 100 * ROUNDED_TOLERANCE * right.abs().max()


@pytest.mark.parametrize(("cpu", "native"), [(AMX, True), (INTEL, False), (AMD, True), (OLD_AMD, False), (ARM, True)])
def test_which_cpu_multiplies_bfloat16_itself(cpu: dict[str, Any], native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    assert devices.emulates(CPU, "bfloat16") != native
    context = devices.half_precision(CPU, "bfloat16")
    assert isinstance(context, torch.autocast) == native and isinstance(context, RoundedProducts) != native
    assert isinstance(devices.half_precision(CPU, "float16"), torch.autocast)


def test_a_torch_without_onednn_computes_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in torch's wheel for Apple silicon: none of oneDNN's questions can be asked, and no half precision is native."""
    monkeypatch.setattr(torch.ops, "mkldnn", type("Namespace", (), {})())
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: ARM)
    assert devices.pick("cpu") == CPU and capsys.readouterr().err == ""
    assert devices.pick("cpu", "bfloat16") == devices.pick("cpu", "float16") == CPU
    assert capsys.readouterr().err.count("warning: --dtype") == 2
    assert isinstance(devices.half_precision(CPU, "bfloat16"), RoundedProducts)
    devices.keep_freed_memory(CPU)


def test_a_micro_batch_that_mps_may_get_wrong_is_refused() -> None:
    devices.refuse_large_micro_batch(torch.device("mps"), 32_768)
    devices.refuse_large_micro_batch(CPU, 65_536)
    with pytest.raises(InputError, match=r"65,536 tokens a micro-batch .*#177116.*keep to 32,768, with more --accumulation"):
        devices.refuse_large_micro_batch(torch.device("mps"), 65_536)


def test_both_kinds_of_bfloat16_give_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured, relative: losses 2.4e-4, norms 9e-5; the rounded loss is 2e-5 from float32's, since it rounds less often."""
    train, tokens = TrainConfig(dtype="bfloat16"), batch(shape=(2, 3, T + 1))
    found = []
    for cpu in (AMX, INTEL):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda cpu=cpu: cpu)
        found.append(torch_twin(scaled_up(fresh()), train=train).train_step(tokens, 1e-3))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-3) and found[0] != found[1]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-3)


def test_casts_shared_by_micro_batches_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """One autocast around all micro-batches against one around each."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AMX)
    tokens, train = batch(shape=(3, B, T + 1)), TrainConfig(dtype="bfloat16", grad_clip=1e9)
    twin, other = torch_twin(scaled_up(fresh()), train=train), torch_twin(scaled_up(fresh()), train=train)
    twin.train_step(tokens, 0.0)
    for micro_batch in torch.from_numpy(tokens).long():
        with torch.autocast("cpu", torch.bfloat16):
            logits = other.model(micro_batch[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), micro_batch[:, 1:].flatten(), reduction="none").sum()
            loss = loss / tokens[..., 1:].size
        loss.backward()
    for (name, found), expected in zip(twin.model.named_parameters(), other.model.parameters(), strict=True):
        np.testing.assert_array_equal(found.grad.numpy(), expected.grad.numpy(), err_msg=name)


def test_gradients_lie_where_they_lay_and_start_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits after three steps as with gradients that are forgotten; others if those of the last step stay."""

    def weights(zero: Any, steps: int = 3) -> Arrays:
        monkeypatch.setattr(devices, "zero_gradients", zero)
        twin, places = torch_twin(fresh()), set()
        for step in range(steps):
            twin.train_step(batch(shape=(2, B, T + 1), seed=step), 1e-2)
            places.add(tuple(parameter.grad.data_ptr() for parameter in twin.model.parameters()))
        assert zero is not kept or len(places) == 1
        return twin.weights()

    def forgotten(parameters: list[torch.nn.Parameter]) -> None:
        for parameter in parameters:
            parameter.grad = None

    kept = devices.zero_gradients
    found, expected, wrong = weights(kept), weights(forgotten), weights(lambda parameters: None)
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        assert not np.array_equal(found[name], wrong[name]), name


def test_no_graph_outlives_its_micro_batch() -> None:
    """The loss of one is gone when the next begins."""
    losses: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []
    twin = torch_twin(fresh())
    twin.model.register_forward_pre_hook(lambda *_: alive.extend(loss() is not None for loss in losses))
    twin.model.register_forward_hook(lambda _module, _inputs, loss: losses.append(weakref.ref(loss)))
    twin.train_step(batch(shape=(3, B, T + 1)), 1e-3)
    assert alive == [False] * 3 and len(losses) == 3


def test_elsewhere_gradients_are_forgotten() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, device="meta"))
    parameter.grad = torch.ones(3, device="meta")
    devices.zero_gradients([parameter])
    assert parameter.grad is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its malloc only")
def test_freed_memory_is_kept() -> None:
    """Eight blocks of 40 MiB, more than glibc ever keeps by itself: 81,928 page faults without it.

    With it none, or those of one block more where something small lay in the way: 10,240, in 3 of 12 runs.
    """
    script = """if True:
        import resource, sys, torch
        from torch_gpt.device import keep_freed_memory
        if sys.argv[1] == "keep":
            keep_freed_memory(torch.device("cpu"))
        faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        def work():
            for _ in range(4):
                blocks = [torch.ones(10 * 2**20) for _ in range(2)]
                del blocks
        work()
        begin = faults()
        work()
        print(faults() - begin)
    """
    found = [
        int(subprocess.run([sys.executable, "-c", script, how], cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "return")
    ]
    assert 4 * found[0] < found[1], found  # a ratio: with huge pages both are fewer


@pytest.mark.parametrize(
    ("products", "dtype"),
    [
        (nullcontext, torch.float32),
        (lambda: torch.autocast("cpu", torch.bfloat16), torch.bfloat16),
        (RoundedProducts, torch.float32),
    ],
)
def test_a_linear_layer_of_gelu_keeps_its_input_alone_and_gives_the_same_bits(products: Any, dtype: torch.dtype) -> None:
    """The bytes that a forward pass leaves allocated, and the gradients, against the plain two lines."""
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(7 * 64, 5 * 64)
    given = torch.randn(2, 33, 7 * 64, generator=generator).to(dtype)

    def run(layer: Any) -> tuple[int, list[torch.Tensor]]:
        linear.zero_grad()
        x = given.clone().requires_grad_()
        with profile(profile_memory=True) as profiled, products():
            y = layer(linear, x)
        y.float().square().sum().backward()
        gradients = [leaf.grad for leaf in (x, linear.weight, linear.bias) if leaf.grad is not None]
        return sum(event.self_cpu_memory_usage for event in profiled.key_averages()), [y, *gradients]

    run(linear_of_gelu)  # the first run allocates what later ones find
    (lean, found), (plain, expected) = run(linear_of_gelu), run(lambda layer, x: layer(gelu(x)))
    assert len(found) == 4
    for value, right in zip(found, expected, strict=True):
        torch.testing.assert_close(value, right, rtol=0, atol=0)
    assert plain - lean == given.nbytes


def test_a_gpu_still_gets_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.compile traces for CUDA, on tensors without values; a question about this CPU would split it."""
    model = GPT(CONFIG).to("meta")
    idx, counted = (torch.zeros(2, T, dtype=dtype, device="meta") for dtype in (torch.long, torch.float32))

    def loss() -> torch.Tensor:
        return model(idx, loss_of=(idx, counted))

    assert torch.compile(loss, backend="eager", fullgraph=True)().shape == ()
    torch.compiler.reset()
    monkeypatch.setattr(functional, "slow", lambda x: bool(torch.cpu.get_capabilities()) and False)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(loss, backend="eager", fullgraph=True)()
    torch.compiler.reset()
