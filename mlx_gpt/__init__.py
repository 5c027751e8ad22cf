"""The GPT in Apple MLX; twin of torch_gpt."""

import os

from mlx_gpt.blas import preload

# Two things are done at import: they have no effect once MLX has begun. On an M5 and on NVIDIA GPUs, MLX's own default is to
# round the factors of float32 products to 11 bits (TF32; mlx #3534, #3860, "Numerical Precision" in its documentation):
# 3e-4 to 8e-4 off in place of 3e-7. PyTorch's default is float32, and so is ours.
os.environ.setdefault("MLX_ENABLE_TF32", "0")
preload()
