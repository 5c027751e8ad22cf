"""python -m torch_gpt.evaluate: bits per byte of a checkpoint. Twin of mlx_gpt/evaluate.py."""

from gpt_core import cli, evaluation
from torch_gpt import device as devices
from torch_gpt.model import GPT
from torch_gpt.state import load_weights
from torch_gpt.step import make_token_nats


def main() -> None:
    """The command."""
    args = evaluation.parser("torch_gpt", devices.DEVICES).parse_args()
    device = devices.pick(args.device)
    loaded, tokenizer, tokens = evaluation.load_source(args)
    model = GPT(loaded.model).to(device)
    load_weights(model, loaded.weights)
    result = evaluation.evaluate(tokens, tokenizer, loaded.model.block_size, make_token_nats(model, device))
    evaluation.report(result, loaded)


if __name__ == "__main__":
    cli.run(main)
