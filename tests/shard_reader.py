"""Another reader of llm.c shards: it uses `struct` only and shares nothing with the writer."""

import struct


def read_llm_c(path):
    """(tokens) of an llm.c shard, by the format's own description."""
    raw = path.read_bytes()
    header = struct.unpack("<256i", raw[:1024])
    assert header[:2] == (20240520, 1) and not any(header[3:])
    assert len(raw) == 1024 + 2 * header[2]
    return list(struct.unpack(f"<{header[2]}H", raw[1024:]))


def rows_of(tokens):
    """The tokens parted at each 0."""
    rows: list[list[int]] = []
    for token in tokens:
        if token == 0:
            rows.append([])
        else:
            rows[-1].append(token)
    return rows
