"""The model card of an exported folder, filled from the run's own records; what is not recorded is said to be unknown."""

import json
from typing import Any

from tokenizers import Tokenizer

from gpt_core.dataset import MANIFEST, read_manifest
from gpt_core.errors import InputError
from gpt_core.files import sha256
from gpt_core.metrics import VALIDATION_FIELDS, Record, read_metrics
from gpt_core.names import parameter_count
from weights.source import Source
from weights.twin_write import AVERAGE

HUB_LICENCE = ("cc-by-4.0", "CC BY 4.0, Creative Commons Attribution")
UNKNOWN = "not recorded"


def card(source: Source, name: str) -> str:
    """README.md with the front matter of the Hugging Face hub."""
    manifest = read_run_manifest(source)
    return "\n".join(
        [
            _front_matter(source, manifest),
            f"# {name}",
            "",
            _model(source),
            _use(name),
            _corpus(manifest),
            _recipe(source),
            _losses(source),
        ]
    )


def read_run_manifest(source: Source) -> dict[str, Any] | None:
    """The dataset's manifest that the run folder keeps, if it is the one that the checkpoint names."""
    path = source.path.parent / MANIFEST
    if not path.is_file() or sha256(path) != source.records.manifest_sha256:
        return None
    return read_manifest(path.parent)


def last_validation(source: Source) -> Record | None:
    """The run's newest validation record up to the checkpoint's step; none of a mean, which the run never validated."""
    if source.maker == AVERAGE:
        return None
    path = source.path.parent / "metrics.jsonl"
    try:
        records = read_metrics(path) if path.is_file() else []
    except InputError:
        return None  # a broken log does not make the weights worse
    shown = ("loss", *VALIDATION_FIELDS)
    whole = [record for record in records if all(isinstance(record.get(name), float) for name in shown)]
    done = [record for record in whole if record["step"] <= source.records.step]
    return done[-1] if done else None


def _front_matter(source: Source, manifest: dict[str, Any] | None) -> str:
    hub = manifest is not None and manifest["source"]["name"] == "hub"
    lines = ["language:", "- arq", "- ar", "library_name: transformers", "pipeline_tag: text-generation"]
    if hub and manifest and not source.base:  # the licence of what it began with is not known
        lines += [f"license: {HUB_LICENCE[0]}", "datasets:", f"- {manifest['source']['dataset']}"]
    lines += ["tags:", f"- {source.architecture.model_type}", "- mlx", "- darija", "- algerian-arabic"]
    return "\n".join(["---", *lines, "---", ""])


def _model(source: Source) -> str:
    model, used = source.model, Tokenizer.from_str(source.tokenizer).get_vocab_size()
    return (
        f"{source.architecture.described}, {parameter_count(model):,} parameters, float32: {model.n_layer} layers, "
        f"width {model.n_embd}, {model.n_head} heads, context {model.block_size} tokens, {used:,} tokens of byte-level BPE"
        f" ({model.vocab_size - used} unused rows pad the embedding).\nEvery text starts with `<|endoftext|>`; "
        "the tokenizer adds it.\n"
    )


def _use(name: str) -> str:
    return f"""## Use
```python
from transformers import pipeline

write = pipeline("text-generation", model="{name}")
print(write("واش راك", do_sample=True, temperature=0.8, max_new_tokens=40)[0]["generated_text"])
```
On a Mac: `mlx_lm.generate --model {name} --prompt "واش راك"`.
"""


def _corpus(manifest: dict[str, Any] | None) -> str:
    if manifest is None:
        return f"## Corpus\nCorpus: {UNKNOWN}. Licence of the data: {UNKNOWN}.\n"
    origin = manifest["source"]
    if origin["name"] == "hub":
        text = f"`{origin['dataset']}`, split `{origin['split']}`, revision `{origin['revision']}`"
        licence = HUB_LICENCE[1]
    else:
        files = ", ".join(f"`{entry['file']}` (SHA-256 `{entry['sha256'][:12]}`)" for entry in origin["files"])
        text = f"the sample corpus of Darija GPT: {files}" if origin["name"] == "sample" else f"files: {files}"
        licence = "that of Darija GPT" if origin["name"] == "sample" else f"{UNKNOWN}, the files were given by hand"
    lines = ["## Corpus", f"Algerian Darija from {text}.", f"Licence of the data: {licence}.", ""]
    lines += ["| split | rows | words | UTF-8 bytes | tokens |", "| --- | --- | --- | --- | --- |"]
    for split, counts in manifest["splits"].items():
        numbers = " | ".join(f"{counts[unit]:,}" for unit in ("rows", "words", "bytes", "tokens"))
        lines.append(f"| {split} | {numbers} |")
    lines += ["", f"Prepared with {json.dumps(manifest['options'])}; rows dropped: {json.dumps(manifest['dropped'])}.", ""]
    return "\n".join(lines)


def _recipe(source: Source) -> str:
    if not source.known:
        return f"## Recipe\nRecipe: {UNKNOWN}, the weights were not trained by Darija GPT.\n"
    train, records = source.records.train, source.records
    tokens = train.sequences_per_step * source.model.block_size
    muon = f"Muon, learning rate {train.muon_lr:g}, for the matrices of the layers; " if train.optimizer == "muon" else ""
    noise = f" dropout {train.dropout:g};" if train.dropout else ""
    noise += f" token noise {train.token_noise:g};" if train.token_noise else ""
    rows = " rows packed whole, none sees another;" if train.document_mask else ""
    began = f"Began with the weights of another model (`model.safetensors`, SHA-256 `{source.base[:12]}`)"
    base = f"{began}, whose corpus, recipe and licence are {UNKNOWN} here.\n" if source.base else ""
    mean = "The mean of several checkpoints, weight by weight, the last of them after " if source.maker == AVERAGE else ""
    return (
        f"## Recipe\n{base}{mean}{records.step:,} steps of {tokens:,} tokens, {records.tokens:,} in all;{rows} {muon}AdamW, "
        f"betas {train.beta1} and {train.beta2}, weight decay {train.weight_decay} on matrices, "
        f"gradient clip {train.grad_clip};{noise} learning rate {train.lr:g}, {train.schedule}, {train.warmup_steps} warm-up "
        f"steps; seed {train.seed}; {train.dtype}.\n"
    )


def _losses(source: Source) -> str:
    record = last_validation(source)
    if record is None:
        return f"## Losses\nValidation losses: {UNKNOWN}.\n"
    loss, row, stream = (record[name] for name in VALIDATION_FIELDS)
    return (
        f"## Losses\nOn a part of the validation split, at step {record['step']:,}: {row:.4f} bits a byte row by row, "
        f"{stream:.4f} bits a byte and {loss:.4f} nats a token on packed text. Training loss there: {record['loss']:.4f}.\n"
    )
