"""Nominal peaks of known chips, for MFU: fp32 ALU rate of Apple GPUs, dense tensor rate of NVIDIA GPUs."""

import re

from gpt_core.config import DType

# 1e12 FLOP/s. Apple: cores x 128 x 2 x clock, float32, as announced for M1 to M3; half precision has the same ALU rate.
# M4 figures differ by 10 to 40 % between sources and M5 has none published: no figure is better than a doubtful one.
APPLE = {
    "M1": 2.6, "M1 Pro": 5.2, "M1 Max": 10.4, "M1 Ultra": 21.0,
    "M2": 3.6, "M2 Pro": 6.8, "M2 Max": 13.6, "M2 Ultra": 27.2,
    "M3": 3.6, "M3 Pro": 6.4, "M3 Max": 14.3, "M3 Ultra": 28.0,
}  # fmt: skip
# 1e12 FLOP/s, dense, float16 and bfloat16 (data sheets). A float32 run has another peak, which is not listed.
NVIDIA_HALF = {
    "A100": 312.0, "H100 80GB HBM3": 989.0, "H100 PCIe": 756.0, "H100 NVL": 835.0, "H200": 989.0, "H200 NVL": 836.0,
    "B200": 2250.0, "L40S": 362.0, "L4": 121.0, "A40": 149.7, "A30": 165.0, "RTX 4090": 165.2,
    "RTX 3090": 71.0, "RTX 5090": 209.5,
}  # fmt: skip


def nominal_tflops(chip: str, dtype: DType) -> float | None:
    """Nominal peak of a chip by its reported name ("Apple M1 Pro", "NVIDIA A100-SXM4-40GB"), or None if unknown."""
    apple = re.fullmatch(r"Apple (M\d( \w+)?)", chip)
    if apple:
        return APPLE.get(apple[1])
    nvidia = re.fullmatch(r"NVIDIA (?:GeForce )?(.*?)(?:-(?:SXM|PCIE).*| \d+GB PCIe)?", chip)  # not "Laptop GPU" or "Ti"
    return NVIDIA_HALF.get(nvidia[1]) if nvidia and dtype != "float32" else None
