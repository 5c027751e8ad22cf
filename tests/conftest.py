"""Fixtures for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import make_dataset, make_tokenizer
from hypothesis import settings
from tokenizers import Tokenizer

import mlx_gpt  # noqa: F401  (here, before any test file imports mlx.core: it loads the fast BLAS)

settings.register_profile("shared-machine", deadline=None)  # a slow example is no failure where cores are shared
settings.load_profile("shared-machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, the longest file starts first, so that nothing waits for it at the end."""
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist
        items.sort(key=lambda item: item.path.name != "test_twin_real_rows.py")


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder of 62 rows of Darija, 400 tokens at most. Shared: copy it before changing it."""
    return make_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A byte-level BPE of the same rows."""
    return make_tokenizer()


@pytest.fixture(autouse=True, scope="session")
def _eager_mlx() -> None:
    """Compiled CPU kernels take seconds to build: one test compares them with the eager ones, the rest runs eagerly.

    On the CPU, a Mac's tests too: the tolerances were measured there. Tests of a GPU choose it themselves.
    """
    mlx = pytest.importorskip("mlx_gpt.step")
    mlx.mx.disable_compile()
    mlx.mx.set_default_device(mlx.mx.cpu)


@pytest.fixture(autouse=True)
def _back_to_the_cpu(_eager_mlx: None) -> Iterator[None]:
    """Whatever device a test, or a command that it called, chose."""
    yield
    mx = pytest.importorskip("mlx.core")
    mx.set_default_device(mx.cpu)
