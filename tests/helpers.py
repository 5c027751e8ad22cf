"""A tiny dataset folder made by code, and token streams: what the tests of gpt_core and of the twins start from.

The rows are ours. Nothing here uses data_prep: it makes the same folder by its description in DESIGN.md, section 5.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from gpt_core.shards import TokenStream, write_shard

ROWS = """
واش راك خويا لاباس عليك
الحمد لله راني مليح و نتا
كيفاش داير مع الخدمة اليوم
راني عيان بزاف من الصباح
وين راك رايح ضرك
رايح للسوق نشري الخضرة
شحال راهي البطاطا اليوم
غالية بزاف يا خويا ربي يجيب
ما عنديش الدراهم باش نشري
نتلاقاو غدوة في القهوة
صح ان شاء الله نجي بكري
علاش ما جيتش البارح
كنت مريض و رقدت بكري
الله يشفيك خويا تهلا في روحك
يعطيك الصحة على السؤال
الماتش تاع البارح كان شباب
لعبو مليح بصح خسرو في اللخر
المنتخب لازم يبدل المدرب
هذا واش نقول من بكري 😂
نتا ديما تقول نفس الهدرة
وقتاش يجي التران لوهران
على الستة تاع العشية
بعيدة بزاف من هنا للمحطة
نروح معاك بالطوموبيل كي تحب
بارك الله فيك ما تعيش روحك
شفت الفيديو لي بعثتهولك
ايه شفتو ضحكت بزاف 😂😂
الدراري راهم يلعبو في الحومة
خليهم يلعبو مازالهم صغار
يما دارت الكسكسي اليوم
يا سلام ريحتو وصلت لهنا
ارواح تتغدا معانا مرحبا بيك
نجي كي نكمل الخدمة تاعي
ما تنساش تجيب الخبز معاك
شحال من خبزة نجيب
جيب زوج و لا ثلاثة
الجو سخون بزاف في الصحرا
هنا راهي تصب الشتا من البارح
البحر كان شباب الصيف لي فات
نروحو للجيجل هاد العام
الطريق طويلة بصح البلاصة هايلة
كاين بزاف الناس في الصيف
ربي يحفظ البلاد و يفرجها علينا
امين يا رب العالمين
واحد ما يعرف واش يصرا غدوة
المهم الصحة و العافية
هاذي هي الهدرة الصحيحة
راك فاهم واش نقصد و لا لا
فهمتك خويا غير اهدا شوية
ما تزعفش روحك على والو
الانترنت راهي ثقيلة بزاف اليوم
عيطتلك البارح ما جاوبتش
التيليفون كان طافي سمحلي
ماعليش المهم راك بخير
سلملي على الدار كامل
الله يسلمك يوصل ان شاء الله
تصبح على خير خويا
و نتا من اهل الخير
شكون لي قالك هاد الهدرة
سمعتها من عند جارنا القديم
كل واحد و زهرو في الدنيا
صدقت و الله غير صدقت
""".strip().split("\n")
"""62 rows of Darija."""

TRAIN_ROWS, VAL_ROWS = ROWS[:-10], ROWS[-10:]


def sha256_hex(path: Path) -> str:
    """Hex SHA-256 of a file, not by gpt_core."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_tokenizer(rows: Sequence[str] = ROWS, vocab_size: int = 400) -> Tokenizer:
    """A byte-level BPE as data_prep makes them: id 0 is <|endoftext|>, then 256 bytes, then merges."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken("<|endoftext|>", special=True, normalized=False)],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(rows, trainer=trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode(tokenizer: Tokenizer, rows: Sequence[str]) -> np.ndarray:
    """<|endoftext|> and its tokens for every row, (n,) uint16."""
    return np.array([i for row in rows for i in (0, *tokenizer.encode(row, add_special_tokens=False).ids)], dtype=np.uint16)


def make_dataset(
    folder: Path,
    train_rows: Sequence[str] = TRAIN_ROWS,
    val_rows: Sequence[str] = VAL_ROWS,
    *,
    vocab_size: int = 400,
    shards: tuple[int, int] = (3, 2),
) -> Path:
    """Writes a dataset folder: tokenizer.json, `shards` = (train, val) shards of unequal size, manifest.json."""
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer(train_rows, vocab_size)
    tokenizer.save(str(folder / "tokenizer.json"))
    entries: list[dict[str, Any]] = []
    splits: dict[str, dict[str, int]] = {}
    for split, rows, count in (("train", train_rows, shards[0]), ("val", val_rows, shards[1])):
        cuts = [len(rows) * (i * (i + 1)) // (count * (count + 1)) for i in range(count + 1)]
        for index in range(count):
            path = folder / f"darija_{split}_{index:03d}.bin"
            write_shard(path, encode(tokenizer, rows[cuts[index] : cuts[index + 1]]))
            entries.append({"file": path.name, "split": split, "tokens": 0, "sha256": ""})
        splits[split] = {
            "rows": len(rows),
            "words": sum(len(row.split()) for row in rows),
            "bytes": sum(len(row.encode()) for row in rows),
            "characters": sum(map(len, rows)),
            "tokens": len(encode(tokenizer, rows)),
        }
    manifest = {
        "format_version": 1,
        "source": {"name": "tests/helpers.py"},
        "options": {"vocab_size": vocab_size},
        "splits": splits,
        "dropped": {},
        "tokenizer": {"file": "tokenizer.json", "sha256": "", "vocab_size": tokenizer.get_vocab_size()},
        "shards": entries,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    sign(folder)
    return folder


def sign(folder: Path) -> None:
    """Makes the manifest agree with the files as they are now: sizes and hashes."""

    def agree(manifest: dict[str, Any]) -> None:
        manifest["tokenizer"]["sha256"] = sha256_hex(folder / "tokenizer.json")
        for entry in manifest["shards"]:
            path = folder / entry["file"]
            entry["tokens"], entry["sha256"] = (path.stat().st_size - 1024) // 2, sha256_hex(path)

    edit_json(folder / "manifest.json", agree)


def sign_state(folder: Path) -> None:
    """Gives a checkpoint's state.json the checksum of what it says now: SHA-256 of the rest as JSON with sorted keys."""

    def agree(state: dict[str, Any]) -> None:
        state.pop("checksum", None)
        state["checksum"] = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    edit_json(folder / "state.json", agree)


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Reads a JSON file, lets `change` edit it, writes it back."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def flip(path: Path, position: int, mask: int = 1) -> None:
    """Changes one byte of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(bytes(data))


def stream_of(*shards: Sequence[int]) -> TokenStream:
    """A stream over shards given as lists."""
    return TokenStream([np.array(shard, dtype=np.uint16) for shard in shards])
