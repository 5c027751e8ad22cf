"""What was kept and what was dropped, for a person and, in one line, for a script."""

import json
from pathlib import Path
from typing import Any

from data_prep.clean import REASONS
from data_prep.spool import LATER
from gpt_core.dataset import MANIFEST
from gpt_core.files import sha256

WHY = {**REASONS, **LATER}
WHAT = {
    "invisible": "invisible or broken characters removed",
    "presentation_forms": "Arabic presentation forms made letters",
    "unicode_nfc": "letters composed (Unicode NFC)",
    "diacritics": "vowel signs removed",
    "tatweel": "tatweel removed",
    "space": "white space folded",
    "end_of_text": "<|endoftext|> removed",
    "phones": "telephone numbers removed",
    "urls": "links removed",
    "emails": "e-mail addresses removed",
    "handles": "@handles removed",
    "elongation": "stretched letters folded",
    "punctuation": "repeated punctuation folded",
    "loops": "phrases repeated in a row written once",
    "latin_words": "words in Latin script removed, all or the French ones",
}


def report(manifest: dict[str, Any]) -> str:
    """Several lines: rows read, dropped by reason, kept, changed by rule; then splits, tokenizer and shards."""
    read, dropped, splits = manifest["rows_read"], manifest["dropped"], manifest["splits"]
    kept = sum(split["rows"] for split in splits.values())
    lines = [f"rows read       {_share(read, read)}"]
    lines += [f"  dropped       {_share(count, read)}  {reason}: {WHY[reason]}" for reason, count in dropped.items()]
    lines += [f"  kept          {_share(kept, read)}", "rows changed by a rule, kept or not"]
    lines += [f"                {_share(count, read)}  {WHAT[rule]}" for rule, count in manifest["changed"].items()]
    for unit, counts in manifest["languages"].items():
        shares = ", ".join(f"{language} {count:,}" for language, count in counts.items())
        lines.append(f"{unit} read by language: {shares}")
    for name, split in splits.items():
        lines.append(
            f"{name:<5} {split['rows']:>11,} rows {split['words']:>12,} words {split['bytes']:>13,} bytes "
            f"{split['tokens']:>12,} tokens ({split['tokens'] / split['words']:.2f} a word)"
        )
    found, asked = manifest["tokenizer"]["vocab_size"], manifest["options"]["vocab_size"]
    lines.append(f"tokenizer {found:,} tokens")
    if found < asked:
        lines.append(f"  fewer than the {asked:,} asked for: no other pair of tokens occurs twice in the training rows")
    lines.append(f"shards {len(manifest['shards'])}")
    return "\n".join(lines)


def summary(manifest: dict[str, Any], out: Path) -> str:
    """The main figures as one line of JSON."""
    splits = manifest["splits"]
    figures = {
        "out": str(out),
        "rows_read": manifest["rows_read"],
        "rows": sum(split["rows"] for split in splits.values()),
        "dropped": manifest["dropped"],
        "words": sum(split["words"] for split in splits.values()),
        "tokens": sum(split["tokens"] for split in splits.values()),
        "train_tokens": splits["train"]["tokens"],
        "val_tokens": splits["val"]["tokens"],
        "test_tokens": splits["test"]["tokens"] if "test" in splits else 0,
        "vocab_size": manifest["tokenizer"]["vocab_size"],
        "shards": len(manifest["shards"]),
        "manifest_sha256": sha256(out / MANIFEST),
    }
    return json.dumps(figures)


def _share(count: int, total: int) -> str:
    return f"{count:>11,} {100 * count / total:5.1f} %"
