"""python -m benchmarks.large: 1B parameters and 100B tokens on paper; the tables of docs/scale.md. Nothing is measured."""

from dataclasses import dataclass

from benchmarks import tables
from gpt_core import cli
from gpt_core.cli import Parser
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.flops import flops_per_token, tokens_per_step, training_memory
from gpt_core.names import parameter_count
from gpt_core.peaks import APPLE, NVIDIA_HALF

MODEL = GPTConfig(vocab_size=32_768, block_size=2048, n_layer=24, n_head=14, n_embd=1792)
TRAIN = TrainConfig(micro_batch_size=8, accumulation=32)
TOKENS = 100e9
MFU = 0.4
DAY = 86_400


@dataclass(frozen=True)
class Cluster:
    """Machines to plan for. `wire` is what a link carries one way, nominal, GB/s."""

    chip: str
    ranks: int
    tflops: float
    link: str
    wire: float


CLUSTERS = (
    Cluster("H100 SXM", 8, NVIDIA_HALF["H100 80GB HBM3"], "NVLink 4", 450),
    Cluster("A100 SXM", 8, NVIDIA_HALF["A100"], "NVLink 3", 300),
    Cluster("M3 Ultra", 4, APPLE["M3 Ultra"], "Thunderbolt 5", 10),
    Cluster("M3 Ultra", 4, APPLE["M3 Ultra"], "10 Gb Ethernet", 1.25),
    Cluster("M3 Max", 1, APPLE["M3 Max"], "none", 0),
)


def all_reduce_bytes(parameters: int, ranks: int) -> float:
    """Bytes that each rank sends for one sum of float32 gradients in a ring: 2 (N - 1) / N x 4 P (Patarasuk and Yuan 2009)."""
    return 2 * (ranks - 1) / ranks * 4 * parameters


def sharded_bytes(parameters: int, ranks: int, micro_batches: int) -> float:
    """The same with sharded weights: gathered twice a micro-batch (forward, backward), gradients scattered once a step."""
    return (2 * micro_batches + 1) * (ranks - 1) / ranks * 4 * parameters


def step_seconds(cluster: Cluster) -> float:
    """Seconds to compute one optimizer step at the assumed MFU."""
    return flops_per_token(MODEL) * tokens_per_step(MODEL, TRAIN) / (cluster.ranks * cluster.tflops * 1e12 * MFU)


def wire_seconds(cluster: Cluster) -> float:
    """Seconds to sum the gradients, none of it hidden behind computing."""
    return all_reduce_bytes(parameter_count(MODEL), cluster.ranks) / (cluster.wire * 1e9) if cluster.ranks > 1 else 0.0


def sizes() -> str:
    """What does not depend on the hardware."""
    count, step = parameter_count(MODEL), tokens_per_step(MODEL, TRAIN)
    steps = int(TOKENS // step)
    total = flops_per_token(MODEL) * TOKENS
    activations = training_memory(MODEL, TRAIN) - 16 * count
    rows = [
        ["what", "formula", "value"],
        ["parameters P", "gpt_core.names.parameter_count", f"{count:,}"],
        ["FLOPs a token F", "6 N + 12 L d T", f"{flops_per_token(MODEL) / 1e9:.2f}e9"],
        ["tokens a step", "micro-batch x accumulation x T", f"{step:,}"],
        ["steps S", "100e9 / tokens a step", f"{steps:,}"],
        ["FLOPs in all", "F x 100e9", f"{total / 1e20:.2f}e20"],
        ["weights, gradients, moments", "16 P", f"{16 * count / 1e9:.1f} GB"],
        ["the same on each of 8, sharded", "16 P / 8", f"{2 * count / 1e9:.1f} GB"],
        ["activations of a micro-batch of 8", "gpt_core.flops.training_memory - 16 P", f"{activations / 1e9:.1f} GB"],
        ["activations of a micro-batch of 1", "that / 8", f"{activations / 8e9:.1f} GB"],
        ["a checkpoint", "12 P", f"{12 * count / 1e9:.1f} GB"],
        ["token shards", "2 bytes a token", f"{2 * TOKENS / 1e9:.0f} GB"],
        ["order of an epoch, int64", "8 x 100e9 / T", f"{8 * TOKENS / MODEL.block_size / 1e9:.2f} GB"],
        ["sent by each of 8 ranks a step", "2 x 7/8 x 4 P", f"{all_reduce_bytes(count, 8) / 1e9:.1f} GB"],
        ["sharded, 4 micro-batches a rank", "(2 x 4 + 1) x 7/8 x 4 P", f"{sharded_bytes(count, 8, 4) / 1e9:.1f} GB"],
    ]
    return tables.aligned(rows)


def days() -> str:
    """What each cluster would take."""
    steps = TOKENS / tokens_per_step(MODEL, TRAIN)
    rows = [["chips", "TFLOPS each", "link", "GB/s", "computing s a step", "wire s a step", "days", "days, wire hidden"]]
    for cluster in CLUSTERS:
        compute, wire = step_seconds(cluster), wire_seconds(cluster)
        figures = [f"{cluster.tflops:g}", cluster.link, f"{cluster.wire:g}", f"{compute:.2f}", f"{wire:.3f}"]
        ends = [f"{steps * (compute + wire) / DAY:,.1f}", f"{steps * max(compute, wire) / DAY:,.1f}"]
        rows.append([f"{cluster.ranks} x {cluster.chip}", *figures, *ends])
    return tables.aligned(rows)


def main() -> None:
    """The command."""
    Parser(prog="python -m benchmarks.large", description="1B parameters and 100B tokens on paper.").parse_args()
    print(f"{sizes()}\n\n{days()}")


if __name__ == "__main__":
    cli.run(main)
