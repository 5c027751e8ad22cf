"""The GPT in PyTorch; twin of mlx_gpt."""

from gpt_core import mkl

mkl.preload()  # at import, and before torch's: later it has no effect
