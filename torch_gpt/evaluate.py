"""python -m torch_gpt.evaluate: bits per byte of a checkpoint. Twin of mlx_gpt/evaluate.py."""

from collections.abc import Sequence

from gpt_core import cli, evaluation
from gpt_core.checkpoint import Checkpoint
from gpt_core.scoring import TokenNats, averaged
from torch_gpt import device as devices
from torch_gpt.model import GPT
from torch_gpt.state import load_weights
from torch_gpt.step import make_token_nats


def scorer(members: Sequence[Checkpoint], device: devices.torch.device) -> TokenNats:
    """The scoring function of a checkpoint, or of several together."""
    models = [GPT(loaded.model).to(device) for loaded in members]
    for model, loaded in zip(models, members, strict=True):
        load_weights(model, loaded.weights)
    return averaged([make_token_nats(model, device) for model in models])


def main() -> None:
    """The command."""
    args = evaluation.parser("torch_gpt", devices.DEVICES).parse_args()
    device = devices.pick(args.device)
    sources = evaluation.load_sources(args)
    scores = [
        evaluation.evaluate(source.tokens, source.tokenizer, source.block_size, scorer(source.members, device))
        for source in sources
    ]
    evaluation.report(sources, scores)


if __name__ == "__main__":
    cli.run(main)
