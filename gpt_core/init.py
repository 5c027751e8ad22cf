"""Initial weights, drawn in numpy so that both twins start from the same numbers."""

import numpy as np

from gpt_core.config import GPTConfig
from gpt_core.names import Parameter, parameters


def initial_weights(config: GPTConfig, seed: int) -> dict[str, np.ndarray]:
    """Name -> float32 array for the whole contract table; a pure function of (config, seed)."""
    generator = np.random.default_rng(seed)
    return {parameter.name: _draw(parameter, generator) for parameter in parameters(config)}


def _draw(parameter: Parameter, generator: np.random.Generator) -> np.ndarray:
    if parameter.init is None:
        return np.ones(parameter.shape, dtype=np.float32)
    if parameter.init == 0.0:
        return np.zeros(parameter.shape, dtype=np.float32)
    return generator.standard_normal(parameter.shape, dtype=np.float32) * np.float32(parameter.init)
