"""Nominal peaks by the names that chips report."""

import pytest

from gpt_core.peaks import nominal_tflops


@pytest.mark.parametrize(
    ("chip", "dtype", "expected"),
    [
        ("Apple M1 Pro", "float32", 5.2),
        ("Apple M1 Pro", "bfloat16", 5.2),
        ("Apple M1", "float32", 2.6),
        ("Apple M3 Ultra", "float16", 28.0),
        ("Apple M5", "float32", None),
        ("Apple M4 Max", "float32", None),
        ("Apple M1 Pro CPU", "float32", None),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.0),
        ("NVIDIA H100 80GB HBM3", "float32", None),
        ("NVIDIA H100 PCIe", "float16", 756.0),
        ("NVIDIA A100-SXM4-40GB", "float16", 312.0),
        ("NVIDIA H200", "bfloat16", 989.0),
        ("NVIDIA L4", "bfloat16", 121.0),
        ("NVIDIA L40S", "bfloat16", 362.0),
        ("NVIDIA L40", "bfloat16", None),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
        ("NVIDIA GH200 480GB", "bfloat16", None),
        ("AMD EPYC 9654 CPU", "float32", None),
        ("x86_64 CPU, 2 threads", "bfloat16", None),
        ("", "float32", None),
    ],
)
def test_known_and_unknown_chips(chip, dtype, expected):
    assert nominal_tflops(chip, dtype) == expected


@pytest.mark.parametrize(
    ("chip", "why"),
    [
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "another chip, about half as fast"),
        ("NVIDIA GeForce RTX 3090 Ti", "80, not 71"),
        ("NVIDIA H200 NVL", "835, not 989"),
    ],
)
def test_variants_do_not_get_another_chips_figure(chip, why):
    assert nominal_tflops(chip, "bfloat16") not in (165.2, 71.0, 989.0), why
