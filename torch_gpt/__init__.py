"""The GPT in PyTorch; twin of mlx_gpt."""
