"""The GPT in Apple MLX; twin of torch_gpt."""

from mlx_gpt.blas import preload

preload()  # the one thing done at import: it has no effect once mlx.core is loaded
