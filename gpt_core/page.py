"""HTML pages that need no network: one way to fill templates, one style sheet, Darija set right to left."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gpt_core import bidi

TEMPLATES = Path(__file__).parent / "templates"


def environment(templates: Path, escaping: bool = True) -> Environment:
    """Templates of a folder, beside those every page shares (page.css); the filter `darija` makes a paragraph of a text."""
    made = Environment(  # nosec B701
        loader=FileSystemLoader([templates, TEMPLATES]),
        autoescape=escaping,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["darija"] = bidi.block
    return made
