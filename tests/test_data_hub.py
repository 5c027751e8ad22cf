"""--source hub: against a small hub on the loopback, and against none at all. Nothing leaves this machine."""

import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.sources import HUB_DATASET, HUB_SPLIT, hub_rows
from gpt_core.errors import InputError

datasets = pytest.importorskip("datasets")
ROOT = Path(__file__).parents[1]
REVISION = "0123456789abcdef" * 2 + "01234567"
ROWS = [str(i).translate(str.maketrans("0123456789", "ابتجحدرسشع")) * 3 + f" خويا {i}" for i in range(1000, 1300)]


def parquet(column):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": list(range(len(ROWS))), column: ROWS}), buffer, row_group_size=50)
    return buffer.getvalue()


@contextmanager
def hub(column="Text"):
    """Serves the three things a hub is asked for: the dataset's revision, its file list, its files."""
    card = f"---\nconfigs:\n- config_name: default\n  data_files: [{{split: {HUB_SPLIT}, path: data/v1.parquet}}]\n---\n"
    files = {"README.md": card.encode(), "data/v1.parquet": parquet(column)}
    tree: list[dict[str, Any]] = [
        {"type": "file", "path": name, "size": len(raw), "oid": "0" * 40} for name, raw in files.items()
    ]
    info = {"id": HUB_DATASET, "sha": REVISION, "siblings": [{"rfilename": name} for name in files], "private": False}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            prefix = f"/datasets/{HUB_DATASET}/resolve/{REVISION}/"
            if path.startswith(prefix) and path.removeprefix(prefix) in files:
                self.reply(files[path.removeprefix(prefix)])
            elif path.startswith(f"/api/datasets/{HUB_DATASET}/tree/{REVISION}"):
                folder = path.partition(REVISION)[2].strip("/")
                self.reply(json.dumps([entry for entry in tree if entry["path"].startswith(folder)]).encode())
            elif path in (f"/api/datasets/{HUB_DATASET}", f"/api/datasets/{HUB_DATASET}/revision/{REVISION}"):
                self.reply(json.dumps(info).encode())
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_HEAD = do_GET

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(json.dumps(tree).encode())

        def reply(self, raw):
            span = self.headers.get("Range")
            first, _, last = span.removeprefix("bytes=").partition("-") if span else ("0", "", "")
            part = raw[int(first) : int(last) + 1 if last else len(raw)]
            self.send_response(206 if span else 200)
            if span:
                self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(raw)}")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("ETag", '"tag"')
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(part)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def prepare(endpoint, folder):
    """Runs the command with an empty hub cache; (seconds, finished process)."""
    offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in offline}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hub"), "NO_PROXY": "127.0.0.1"}
    out = ["--out", str(folder / "out"), "--vocab-size", "300", "--shards", "3"]
    command = [sys.executable, "-m", "data_prep", *out]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    return time.perf_counter() - start, done


def test_hub_from_end_to_end(tmp_path):
    with hub() as endpoint:
        _, done = prepare(endpoint, tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert manifest["rows_read"] == len(ROWS)
    assert manifest["source"] == {
        "name": "hub",
        "dataset": "ayoubkirouane/Algerian-Darija",
        "split": "v1",
        "revision": REVISION,
        "files": [],
    }


def refusal(done, folder):
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: --source hub"), done.stderr
    assert [path.name for path in folder.iterdir() if path.name != "hub"] == []
    return done.stderr


def test_another_column_is_named(tmp_path):
    with hub(column="body") as endpoint:
        _, done = prepare(endpoint, tmp_path)
    assert "no column 'Text' or 'text', only 'id', 'body'" in refusal(done, tmp_path)


def test_no_hub_is_told_within_seconds(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    seconds, done = prepare(f"http://127.0.0.1:{port}", tmp_path)
    line = refusal(done, tmp_path)
    assert "--source sample" in line and "--source FILE" in line
    assert seconds < 15, "datasets' own retries alone take 23 s"


def test_rows_of_a_dataset_that_datasets_itself_reads(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(parquet("Text"))
    for streaming in (True, False):
        dataset = datasets.load_dataset(
            "parquet",
            data_files=str(tmp_path / "rows.parquet"),
            split="train",
            streaming=streaming,
            cache_dir=str(tmp_path / "cache"),
        )
        assert list(hub_rows(dataset)) == [(row, None) for row in ROWS]


def test_a_missing_value_is_an_empty_row():
    assert list(hub_rows([{"Text": None}, {"Text": "صحا", "source": "a"}])) == [("", None), ("صحا", "a")]
    with pytest.raises(InputError, match="only 'body'"):
        list(hub_rows([{"body": "صحا"}]))


def test_a_stream_that_is_refused_is_closed():
    """Not when Python ends, where pyarrow's threads abort the process now and then: exit code 134 in place of 2."""
    closed = []

    def stream():
        try:
            yield {"body": "صحا"}
            yield {"body": "صحا"}
        finally:
            closed.append(True)

    with pytest.raises(InputError) as error:
        list(hub_rows(stream()))
    assert closed and error  # which keeps the frames alive, as a program that ends with the error does
