"""How far apart the twins may be, and where each figure comes from.

Measured on a CPU (MLX 0.32.4, PyTorch 2.13.0, float32, preset `tiny`, 10,000 tokens) and set eight to sixty times higher.
A check's limit is never below NOISE times the rounding noise measured beside it in the same run: PyTorch against itself
in float64, or from initial weights moved by PERTURBATION. So a larger or worse conditioned model is not failed for its
rounding, and the table shows where that happened.
"""

NOISE = 10.0
"""Both twins round on their own (twice the noise), and one measurement of noise is not its maximum."""

PERTURBATION = 1e-7
"""Relative change of the initial weights in the control run: about one rounding of float32 (6e-8)."""

SCALE = 10.0
"""Factor on the matrices of the blocks in the check on scaled-up weights: GELU and softmax leave their linear range."""

LOGITS = 1e-5
"""Largest difference of logits over the largest logit. Measured: 4e-7 to 6e-7, initial and trained."""

LOSS = 5e-6
"""Relative difference of the loss. Measured: 2e-7 initial, 6e-7 trained."""

GRADIENT = 4e-5
"""Largest difference in a gradient tensor over its largest element, the worst tensor. Measured: 1.3e-6 to 2.8e-6
initial, 2.3e-6 to 4.6e-6 trained (it varies with the threads that BLAS takes); an exact GELU makes 1.3e-4 and 3.7e-4."""

SCALED_LOGITS = 4e-5
"""Measured on weights x 10: 3.2e-6; an exact GELU makes 4.3e-4 of it."""

SCALED_GRADIENT = 1e-4
"""Measured on weights x 10: 6.9e-6; an exact GELU makes 1.2e-3 of it."""

CURVE_LOSS = 5e-5
"""Largest difference of two losses, nats a token. Measured over 60 steps: 4.8e-6; decay of biases and norms makes 1e-3
of it, AdamW without bias correction 2.7e-2, an exact GELU 5.7e-6: curves do not see that one."""

CURVE_NORM = 5e-5
"""Largest relative difference of two gradient norms. Measured over 60 steps: 2.9e-6."""

CURVE_WEIGHTS = 1e-3
"""Difference of the final weights over the distance they moved, root mean square, the worst tensor. Measured over 60
steps: 1e-5 between the twins, 4.3e-5 for the perturbed run; the mistakes in the optimizer make 0.19 to 0.54 of it."""

STEP_LOGITS = 1e-5
"""As LOGITS, for one token at a time with a cache, the worst of some hundred rows of logits, on trained weights."""
