"""python -m compare.screenshots: makes the pictures of the README anew, from the embedded sample corpus alone.

Data, a short training run, the comparison with its report, the playground: each by its own command, then Chromium.
"""

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from compare.browser import chromium, missing, screenshot
from gpt_core.cli import Parser, run
from gpt_core.errors import InputError

TRAINING_STEPS = 600
WIDE, NARROW = 1200, 380
"""CSS pixels: a desktop window and a telephone."""
REPORT_HEIGHT = 1500
"""CSS pixels of the report that are shown: verdict, checks and controls."""
PROMPT = "اليوم رحت la plage مع صحابي و"
START_TIMEOUT_S = 120.0


def main() -> None:
    """The command."""
    args = parser().parse_args()
    lacking = missing()
    if lacking:
        raise InputError(f"screenshots need a browser: install {lacking}")
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data, trained, report = work / "data", work / "tiny-torch", work / "compare"
        _run("data_prep", "--source", "sample", "--out", data, "--vocab-size", 4000)
        _run("data_prep.report", data)
        training = ("--preset", "tiny", "--vocab-size", 4096, "--steps", TRAINING_STEPS, "--data", data)
        _run("torch_gpt.train", *training, "--run", trained)
        _run("compare", "--data", data, "--out", report)
        for name, width, dark in (("report", WIDE, False), ("report-narrow", NARROW, True)):
            with chromium(width, dark=dark) as driver:
                driver.get((report / "report.html").as_uri())
                screenshot(driver, args.out / f"{name}.png", REPORT_HEIGHT)
        with chromium(WIDE) as driver:
            driver.get((data / "report.html").as_uri())
            screenshot(driver, args.out / "data-report.png", REPORT_HEIGHT)
        for name in ("losses.png", "grad_norms.png"):
            (args.out / name).write_bytes((report / name).read_bytes())
        with playground(trained) as url, chromium(WIDE) as driver:
            continue_prompt(driver, url, PROMPT)
            screenshot(driver, args.out / "playground.png")
    print(f"pictures: {', '.join(sorted(path.name for path in args.out.glob('*.png')))} in {args.out}")


def parser() -> Parser:
    """The flags of python -m compare.screenshots."""
    made = Parser(prog="python -m compare.screenshots", description="Makes the pictures of the README anew (10 minutes).")
    made.add_argument("--out", type=Path, default=Path("docs/images"), metavar="DIR", help="folder of the pictures")
    return made


@contextlib.contextmanager
def playground(checkpoint: Path) -> Iterator[str]:
    """The playground as a process of its own on a free port of this machine; its address, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "compare.playground",
        "--checkpoint",
        str(checkpoint),
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise InputError(f"the playground did not start on port {port}: see its message above")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


def continue_prompt(driver, url: str, prompt: str) -> None:  # type: ignore[no-untyped-def]
    """Types a prompt into the playground, asks for its continuation and waits for its end in both twins."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def text_of(element: str) -> str:
        return str(driver.find_element(By.ID, element).text)

    driver.get(url)
    wait = WebDriverWait(driver, START_TIMEOUT_S)
    wait.until(lambda _: "%" in text_of("next"))
    before = text_of("next")
    box = driver.find_element(By.CSS_SELECTOR, "#prompt textarea")
    box.clear()
    box.send_keys(prompt)
    driver.find_element(By.ID, "start").click()
    wait.until(lambda _: all("tok/s" in text and "writing" not in text for text in map(text_of, ("text-pytorch", "text-mlx"))))
    wait.until(lambda _: text_of("next") != before)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _run(module: str, *arguments: object) -> None:
    print(f"python -m {module} {' '.join(map(str, arguments))}", flush=True)
    done = subprocess.run([sys.executable, "-m", module, *map(str, arguments)], stdout=subprocess.DEVNULL)
    if done.returncode:
        raise InputError(f"python -m {module} ended with exit code {done.returncode}: see its message above")


if __name__ == "__main__":
    run(main)
