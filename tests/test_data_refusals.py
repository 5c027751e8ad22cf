"""How python -m data_prep refuses bad input: one line, exit code 2, nothing left behind."""

import subprocess
import sys
from pathlib import Path

import pytest
from data_samples import ROOT, corpus, refused

GOOD = "".join(f"{row}\n" for row in corpus(200)).encode()


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({}, ["--source", "none.txt"], "none.txt does not exist"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "none.txt"], "none.txt does not exist"),
        ({"a.docx": GOOD}, ["--source", "a.docx"], "extension '.docx'"),
        ({"d/a.txt": GOOD}, ["--source", "d"], "is a folder"),
        ({"a.txt": GOOD}, ["--source", "hub", "a.txt"], "--source hub stands alone"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "sample"], "--source sample stands alone"),
        ({}, ["--source"], "expected at least one argument"),
        ({"a.txt": b""}, ["--source", "a.txt"], "a.txt has no rows"),
        ({"a.csv": b"Text\n"}, ["--source", "a.csv"], "a.csv has no rows"),
        ({"a.csv": b"id,body\n1,a\n"}, ["--source", "a.csv"], "only 'id', 'body'"),
        ({"a.txt": GOOD + b"\0\n"}, ["--source", "a.txt"], "line 201 holds a NUL byte"),
        ({"a.txt": GOOD + b"\xff\n"}, ["--source", "a.txt"], "line 201 is not UTF-8"),
        ({"a.parquet": GOOD}, ["--source", "a.parquet"], "not a readable parquet file"),
        ({"a.jsonl": b"[1]\n"}, ["--source", "a.jsonl"], "line 1 holds a JSON list"),
        ({"a.jsonl": b'{"text": "a"}\n{"text": 1}\n'}, ["--source", "a.jsonl"], "line 2 has a int"),
        ({"a.txt": b"bien\n\n!!\n"}, ["--source", "a.txt"], "(1 empty, 1 no_letters, 1 latin); pass --latin keep"),
        ({"a.txt": b"\n\n!!\n"}, ["--source", "a.txt"], "no row is left of 3"),
        ({"a.txt": "صحا\n".encode() * 500}, ["--source", "a.txt"], "leaves no"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--shards", "300"], "lower --shards"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--shards", "1"], "--shards 1: expected 2 to 1000"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--shards", "1001"], "--shards 1001"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--shards", "two"], "invalid int value: 'two'"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--vocab-size", "257"], "--vocab-size 257: expected 258 to 65536"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--vocab-size", "65537"], "--vocab-size 65537"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--val-fraction", "0"], "--val-fraction 0: expected 0.001 to 0.5"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--val-fraction", "0.6"], "--val-fraction 0.6"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--val-fraction", "nan"], "--val-fraction nan"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--val-fraction", "0.001"], "leaves no validation rows"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--test-fraction", "0.5"], "--test-fraction 0.5: expected 0 or 0.001 to 0.3"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--test-fraction", "-1"], "--test-fraction -1: expected 0 or"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--skip-rules", "urls,space"], "--skip-rules space: no such rule"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--diacritics", "some"], "invalid choice: 'some'"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--seed", "-1"], "--seed -1: expected 0 or more"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--latin", "maybe"], "invalid choice: 'maybe'"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--vocab", "500"], "unrecognized arguments: --vocab"),
        ({"a.txt": GOOD, "x/out": b""}, ["--source", "a.txt", "--out", "x/out"], "--out x/out exists"),
        ({"a.txt": GOOD, "x/f": b""}, ["--source", "a.txt", "--out", "x/f", "--overwrite"], "x/f is a file"),
        ({"a.txt": GOOD}, ["--source", "a.txt", "--out", "a.txt/out"], "--out a.txt/out cannot be made"),
        (
            {"a.txt": GOOD},
            ["--source", "a.txt", "--out", ".", "--overwrite"],
            "--out . is the folder that this command runs in",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, files, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    out = [] if "--out" in arguments else ["--out", "out"]
    assert message in refused([*arguments, *out], capsys)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_line_itself_refuses_and_helps(tmp_path):
    command = [sys.executable, "-m", "data_prep"]
    out = tmp_path / "out"
    bad = subprocess.run(
        [*command, "--source", str(tmp_path / "none.txt"), "--out", str(out)], cwd=ROOT, capture_output=True, text=True
    )
    assert (bad.returncode, len(bad.stderr.splitlines())) == (2, 1) and bad.stderr.startswith("error: --source")
    assert list(tmp_path.iterdir()) == []
    help_text = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert help_text.returncode == 0
    flags = "source out latin diacritics skip-rules pre-tokenizer vocab-size shards val-fraction test-fraction seed overwrite"
    assert all(f"--{flag} " in help_text.stdout for flag in flags.split(" "))
