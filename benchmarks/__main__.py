"""python -m benchmarks"""

from benchmarks.command import main
from gpt_core.cli import run

if __name__ == "__main__":
    run(main)
