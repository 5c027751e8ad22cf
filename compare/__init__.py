"""Proof that the twins agree, which a person can look at: checks, negative controls, report, playground."""

import mlx_gpt  # noqa: F401  (here, before any module imports mlx.core: it loads the fast BLAS)
