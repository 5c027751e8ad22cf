"""Shards on disk, and several of them read as one stream."""

import struct

import numpy as np
import pytest
from helpers import stream_of
from hypothesis import given
from hypothesis import strategies as st

from gpt_core.errors import InputError
from gpt_core.shards import TokenStream, read_shard, write_shard

TOKENS = [0, 65_535, 258, 7, 0]


def llm_c(magic: int = 20240520, version: int = 1, count: int = 5, tokens: list[int] = TOKENS, zeros: int = 253) -> bytes:
    """A shard by the description of the format: 256 little-endian int32, then uint16."""
    return struct.pack(f"<3i{4 * zeros}x{len(tokens)}H", magic, version, count, *tokens)


@pytest.fixture
def shard(tmp_path):
    return tmp_path / "darija_train_000.bin"


def test_written_bytes_are_the_format(shard):
    write_shard(shard, np.array(TOKENS, dtype=np.uint16))
    assert shard.read_bytes() == llm_c()


def test_reads_what_struct_wrote(shard):
    shard.write_bytes(llm_c())
    found = read_shard(shard)
    assert found.tolist() == TOKENS and found.dtype == np.uint16


def test_an_empty_shard_is_whole(shard):
    write_shard(shard, np.empty(0, dtype=np.uint16))
    assert shard.read_bytes() == llm_c(count=0, tokens=[]) and len(read_shard(shard)) == 0


@pytest.mark.parametrize("dtype", ["int64", "int16", "uint32", "float32", ">u2"])
def test_other_dtypes_are_not_written(shard, dtype):
    with pytest.raises(TypeError, match=dtype):
        write_shard(shard, np.zeros(3, dtype=dtype))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (llm_c()[:-1], "announces 5 tokens but holds 4.5"),
        (llm_c()[:-4], "announces 5 tokens but holds 3"),
        (llm_c() + b"\0\0", "announces 5 tokens but holds 6"),
        (llm_c(count=-1, tokens=[]), "announces -1 tokens"),
        (llm_c(magic=20240521), "20240521"),
        (struct.pack(">3i1012x5H", 20240520, 1, 5, *TOKENS), "magic 20240520"),
        (llm_c(version=2), "version 2, expected 1"),
        (llm_c(tokens=[], zeros=252), "1020 bytes"),
        (b"", "0 bytes"),
    ],
)
def test_anything_but_a_whole_shard_is_refused_by_name(shard, content, part):
    shard.write_bytes(content)
    with pytest.raises(InputError, match=shard.name) as error:
        read_shard(shard)
    assert part in str(error.value)


def test_a_missing_shard_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "absent.bin", tmp_path):
        with pytest.raises(InputError, match="is missing"):
            read_shard(path)


SHARDS = st.lists(st.lists(st.integers(0, 65_535), max_size=7), max_size=6)


@given(SHARDS, st.data())
def test_a_stream_is_the_concatenation_of_its_shards(shards, data):
    whole = [token for shard in shards for token in shard]
    stream = stream_of(*shards)
    start = data.draw(st.integers(0, len(whole)))
    count = data.draw(st.integers(0, len(whole) - start))
    found = stream.read(start, count)
    assert len(stream) == len(whole) and found.tolist() == whole[start : start + count] and found.dtype == np.int32


@given(SHARDS, st.integers(-3, 45), st.integers(-3, 45))
def test_a_range_outside_the_stream_raises(shards, start, count):
    size = sum(map(len, shards))
    if start >= 0 and count >= 0 and start + count <= size:
        assert len(stream_of(*shards).read(start, count)) == count
    else:
        with pytest.raises(IndexError, match=f"stream of {size}$"):
            stream_of(*shards).read(start, count)


def test_a_stream_of_shards_on_disk(tmp_path):
    """Mapped files join as arrays do, an empty one between them included."""
    paths = [tmp_path / f"{i}.bin" for i in range(3)]
    for path, tokens in zip(paths, ([1, 2, 3], [], [4, 5]), strict=True):
        path.write_bytes(llm_c(count=len(tokens), tokens=tokens))
    assert TokenStream([read_shard(path) for path in paths]).read(1, 4).tolist() == [2, 3, 4, 5]
