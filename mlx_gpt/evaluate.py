"""python -m mlx_gpt.evaluate: bits per byte of a checkpoint. Twin of torch_gpt/evaluate.py."""

from gpt_core import cli, evaluation
from mlx_gpt import device as devices
from mlx_gpt.model import GPT
from mlx_gpt.state import load_weights
from mlx_gpt.step import make_token_nats


def main() -> None:
    """The command."""
    args = evaluation.parser("mlx_gpt", devices.DEVICES).parse_args()
    devices.pick(args.device)
    loaded, tokenizer, tokens = evaluation.load_source(args)
    model = GPT(loaded.model)
    load_weights(model, loaded.weights)
    result = evaluation.evaluate(tokens, tokenizer, loaded.model.block_size, make_token_nats(model))
    evaluation.report(result, loaded)


if __name__ == "__main__":
    cli.run(main)
