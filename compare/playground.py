"""python -m compare.playground: a page on this machine where both twins continue what one types, side by side."""

import time
from pathlib import Path

from compare.duet import Duet
from compare.sides import load_twins
from gpt_core import checkpoint, cli
from gpt_core.errors import InputError
from gpt_core.names import parameter_count
from gpt_core.tokens import load_tokenizer

HOST = "127.0.0.1"


def main() -> None:
    """The command; ends with Ctrl-C."""
    args = parser().parse_args()
    if args.port is not None and not 1024 <= args.port <= 65_535:
        raise InputError(f"--port {args.port} is out of range: give 1024 to 65535")
    folder = checkpoint.find(args.checkpoint, "--checkpoint")
    loaded = checkpoint.load(folder, moments=False)
    tokenizer = load_tokenizer(folder / checkpoint.TOKENIZER)
    twins = load_twins(args.device)
    try:
        from compare import playground_page
    except ImportError as error:
        raise InputError(f"the playground needs gradio ({error}): pip install -r requirements-tools.txt") from error
    title = f"{folder.resolve().parent.name}, step {loaded.step}, {parameter_count(loaded.model):,} parameters"
    page = playground_page.build(Duet(twins, loaded, tokenizer), title)
    try:
        page.launch(
            server_name=HOST,
            server_port=args.port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            css=playground_page.CSS,
        )
    except OSError as error:
        raise InputError(f"--port {args.port or '7860 to 7959'} on {HOST} is taken: choose another port") from error
    print(f"{page.local_url} shows {title}; Ctrl-C ends it", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        page.close()


def parser() -> cli.Parser:
    """The flags of python -m compare.playground."""
    made = cli.Parser(
        prog="python -m compare.playground",
        description="A page on this machine, closed to the network, where both twins continue what one types.",
    )
    made.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="a run folder or a step_NNNNNN folder")
    made.add_argument("--port", type=int, metavar="N", help="port on 127.0.0.1; if not given the first free one from 7860")
    made.add_argument("--device", choices=("cpu", "auto"), default="auto", help="where to compute: auto is each twin's best")
    return made


if __name__ == "__main__":
    cli.run(main)
