"""Where scribe's text comes from: Jane Austen's six novels.

Jane Austen died in 1817, so the novels are in the public domain everywhere. Debian's package
`r-cran-janeaustenr` (source: CRAN, `janeaustenr`) carries Project Gutenberg's transcriptions as R data; the
package's own licence, MIT, covers its R code. `novels(path)` reads the package's unpacked tree directly, so that no R
is needed; any other path is read as one UTF-8 text file.
"""
import bz2
import lzma
import pathlib
import struct
import unicodedata
import zlib

# The order in which the novels are concatenated, so that a split by position is the same on every machine.
TITLES = ["sensesensibility", "prideprejudice", "mansfieldpark", "emma", "northangerabbey", "persuasion"]


class _Reader:
    """Just enough of R's serialisation format (XDR) for vectors of strings and named lists of numbers."""

    def __init__(self, data):
        if data[:2] != b"X\n":
            raise ValueError("not R's XDR serialisation")
        self.data, self.at, self.seen = data, 2, []
        version = self.int()
        self.at += 8
        if version == 3:
            encoding_length = self.int()
            self.at += encoding_length

    def int(self):
        self.at += 4
        return struct.unpack_from(">i", self.data, self.at - 4)[0]

    def numbers(self, code, width):
        n = self.int()
        self.at += n * width
        return list(struct.unpack_from(f">{n}{code}", self.data, self.at - n * width))

    def item(self):
        flags = self.int()
        kind, has_attributes, has_tag = flags & 255, flags & 512, flags & 1024
        if kind == 254:
            return None
        if kind == 255:
            return self.seen[(flags >> 8) - 1]
        if kind == 1:
            self.seen.append(self.item())
            return self.seen[-1]
        if kind == 9:
            n = self.int()
            self.at += max(n, 0)
            return "" if n < 0 else self.data[self.at - n : self.at].decode("utf-8" if flags >> 12 & 8 else "latin-1")
        if kind == 2:  # A pairlist becomes a dictionary of its tags.
            if has_attributes:
                self.item()
            tag = self.item() if has_tag else None
            head = {tag: self.item()}
            rest = self.item()
            return head | (rest or {})
        if kind in (10, 13):
            value = self.numbers("i", 4)
        elif kind == 14:
            value = self.numbers("d", 8)
        elif kind in (16, 19, 20):
            value = [self.item() for _ in range(self.int())]
        else:
            raise ValueError(f"R's type {kind} is not expected in this package")
        if has_attributes:
            attributes = self.item()
            if "names" in attributes:
                return dict(zip(attributes["names"], value))
        return value


def _record(blob):
    """One record of a lazy-load database: its length, then the compressed serialisation."""
    size, rest = struct.unpack(">I", blob[:4])[0], blob[4:]
    if rest[:1] == b"2":
        data = bz2.decompress(rest[1:])
    elif rest[:1] == b"Z":
        decoder = lzma.LZMADecompressor(
            lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
        )
        data = decoder.decompress(rest[1:])
    else:
        data = zlib.decompress(rest)
    assert len(data) == size, "a record is as long as it says"
    return _Reader(data).item()


def novels(path):
    """The whole text as bytes: the file at `path`, or the novels in an unpacked `r-cran-janeaustenr`."""
    path = pathlib.Path(path)
    if path.is_file():
        return path.read_bytes()
    found = sorted(path.rglob("janeaustenr/data/Rdata.rdx"))
    if not found:
        raise SystemExit(f"{path}: neither a text file nor an unpacked r-cran-janeaustenr")
    index = _Reader(zlib.decompress(found[0].read_bytes(), wbits=47)).item()["variables"]
    blob = found[0].with_suffix(".rdb").read_bytes()
    texts = []
    for title in TITLES:
        offset, length = index[title]
        texts.append(reflow(_record(blob[offset : offset + length])))
    return "\n\n".join(texts).encode("ascii")


def reflow(lines):
    """Hard-wrapped lines joined into one line a paragraph: a line's end then means something, and a prompt that the
    caller types on one line looks like the text that was learnt. Typography is brought down to ASCII."""
    text = "\n".join(line.rstrip() for line in lines)
    for old, new in {"“": '"', "”": '"', "‘": "'", "’": "'", "—": "--", "–": "-", "…": "...", "£": "L"}.items():
        text = text.replace(old, new)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    text = text.replace("_", "")
    paragraphs = [" ".join(p.split()) for p in text.split("\n\n")]
    return "\n".join(p for p in paragraphs if p)
