"""The report: one HTML file that needs no network, the same as Markdown, the plots, tables and a line of JSON."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from compare import bidi, figures
from compare.proof import Proof
from compare.runs import Runs
from compare.setup import HALF, STEPS, Setup
from gpt_core.files import write_text
from gpt_core.names import parameter_count

HTML, MARKDOWN = "report.html", "report.md"
TENSORS_SHOWN = 8
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Outcome:
    """A finished comparison with what the report says about its origin."""

    preset: str
    setup: Setup
    proof: Proof
    runs: Runs | None
    facts: dict[str, str]
    seconds: float

    @property
    def verdict(self) -> str:
        """One sentence."""
        proof, failed = self.proof, [check for check in self.proof.checks if not check.passed]
        if proof.broken:
            found_by = [check for check in proof.broken.failed if proof.broken.control.is_meant(check)]
            how = "was NOT found"
            if found_by:
                how = f"was found by the check meant for it: {found_by[0].section}, {found_by[0].quantity}"
            elif failed:
                how = "was found, but not by the check meant for it"
            return f"The mistake made on purpose ({proof.broken.control.mistake}) {how}."
        if failed:
            worst = min(failed, key=lambda check: check.margin)
            named = f"{worst.section}, {worst.quantity}"
            return f"The twins differ: {len(failed)} of {len(proof.checks)} checks failed, the worst is {named}."
        missed = [caught.name for caught in proof.controls if not caught.found]
        if missed:
            return f"The twins agree, but the checks are too weak: they missed {', '.join(missed)}."
        return (
            f"The twins agree: {len(proof.checks)} checks passed, and each of {len(proof.controls)} mistakes made on purpose "
            "was found."
        )

    def closest(self) -> str:
        """The check with the least room."""
        check = min(self.proof.checks, key=lambda check: check.margin)
        where = "Closest to its limit" if check.passed else "Furthest over its limit"
        return f"{where}: {check.section}, {check.quantity}, {number(check.value)} of {number(check.limit)}."


def write(outcome: Outcome, folder: Path) -> str:
    """Writes every file of the report into `folder`; the JSON line."""
    images = figures.draw(outcome.proof.curves, outcome.runs, folder)
    context = {
        "o": outcome,
        "proof": outcome.proof,
        "runs": outcome.runs,
        "steps": STEPS,
        "half": HALF,
        "tensors_shown": TENSORS_SHOWN,
        "parameters": parameter_count(outcome.setup.config),
        "samples": [sample for sample in outcome.proof.samples if sample.setting.ends],
        "speeds": speeds(outcome.proof),
        "images": [(name, caption, base64.b64encode(data).decode()) for name, caption, data in images],
    }
    for name, escaping in ((HTML, True), (MARKDOWN, False)):
        environment = Environment(  # nosec B701
            loader=FileSystemLoader(TEMPLATES),
            autoescape=escaping,  # Markdown is no HTML
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters |= {"number": number, "margin": margin, "darija": bidi.block, "cell": cell}
        write_text(folder / name, environment.get_template(f"{name}.j2").render(context))
    return json.dumps(summary(outcome, folder), ensure_ascii=False, allow_nan=False)


def summary(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """The last line of stdout: what a script wants to know."""
    proof = outcome.proof
    shown = proof.controls + ([proof.broken] if proof.broken else [])
    return {
        "passed": proof.passed,
        "verdict": outcome.verdict,
        "preset": outcome.preset,
        "broken": proof.broken.name if proof.broken else None,
        "caught_by": [f"{c.section}: {c.quantity}" for c in proof.broken.failed] if proof.broken else [],
        "checks": [check.as_json() for check in proof.checks],
        "controls": {c.name: {"meant_for": c.control.meant_for, "found": c.found} for c in shown},
        "tokens_per_s": speeds(proof),
        "left_out": outcome.runs.notes if outcome.runs else [],
        "report": str(folder / HTML),
        "seconds": round(outcome.seconds, 1),
    }


def speeds(proof: Proof) -> dict[str, float]:
    """Tokens a second of each twin while generating: all tokens over all the time."""
    return {
        name: round(sum(len(c.ids) for c in written) / sum(c.seconds for c in written), 1)
        for name, written in (
            ("PyTorch", [sample.torch for sample in proof.samples]),
            ("MLX", [sample.mlx for sample in proof.samples]),
        )
    }


def tables(outcome: Outcome) -> str:
    """The checks and the controls for a terminal."""
    rows = [("check", "", "measured", "noise", "limit", "margin", "")]
    for check in outcome.proof.checks:
        numbers = (number(check.value), number(check.noise), number(check.limit), margin(check.margin))
        rows.append((check.section, check.quantity, *numbers, "ok" if check.passed else "FAILED"))
    lines = _aligned(rows)
    caught = outcome.proof.controls + ([outcome.proof.broken] if outcome.proof.broken else [])
    found = [("mistake", "meant for", "found by", "over its limit")]
    for each in caught:
        first = each.failed[0] if each.failed else None
        by = f"{first.section}: {first.quantity}" if first else "NOTHING"
        times = f"{1 / first.margin:.3g} x" if first and first.margin else ""
        found.append((each.control.mistake, each.control.meant_for, by, times))
    lines += ["", *_aligned(found)]
    if outcome.runs and outcome.runs.notes:
        lines += ["", *(f"note: {note}" for note in outcome.runs.notes)]
    return "\n".join([*lines, "", outcome.verdict, outcome.closest()])


def number(value: float | None) -> str:
    """Two significant digits, or a dash for nothing."""
    if value is None:
        return "-"
    value = float(value)
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e4 else f"{value:.1e}"


def margin(value: float) -> str:
    """How many times the limit is the value."""
    return "equal" if math.isinf(value) else f"{value:.0f} x" if value >= 10 else f"{value:.2g} x"


def cell(text: str) -> str:
    """A text in one cell of a Markdown table."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
