"""Tar shards as Python and img2dataset lay them out, and what WebDataset reads in them.

Run by hand: `python tests/reference/shards.py` (img2dataset, webdataset, pillow). It draws every
image itself; img2dataset fetches them from a server on this machine.
"""

import http.server
import io
import json
import tarfile
import tempfile
import threading
import zlib
from functools import partial
from pathlib import Path

import img2dataset
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

HERE = Path(__file__).parent / "shards"


def image(number: int, kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6 + number, 5), (40 * number, 90, 200)).save(file, kind)
    return file.getvalue()


def entries(longest: int):
    """Names of every shape: folders, long, with dots, upper case, beyond ASCII, and what is no sample."""
    yield "000000.jpg", image(0, "JPEG")
    yield "000000.txt", b"plain names"
    yield "README", b"no extension: passed over"
    yield "folder.with.dots/1.x.PNG", image(1, "PNG")
    yield "folder.with.dots/1.png", image(1, "PNG")
    yield "folder.with.dots/1.TXT", b"the key ends at the first dot of the last component"
    name = "/".join(["forty-nine-letters-in-each-component-of-this-path"] * (longest // 50))
    yield f"{name}/2.webp", image(2, "WEBP")
    yield f"{name}/2.json", json.dumps({"caption": "a long name", "key": "2"}).encode()
    yield "größe/3.jpeg", image(3, "JPEG")
    yield "größe/3.txt", "beyond ASCII: größe".encode()


def write_tar(path: Path, form: int, longest: int) -> None:
    with tarfile.open(path, "w", format=form) as tar:
        folder = tarfile.TarInfo("a folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "000000.jpg"
        tar.addfile(link)
        for name, data in entries(longest):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5
            tar.addfile(info, io.BytesIO(data))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def write_img2dataset(out: Path) -> None:
    """Downloads from a local server, one address of which leads nowhere."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(4):
            (folder / f"{number}.jpg").write_bytes(image(number, "JPEG"))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=name))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        lines = [{"url": f"{address}/{number}.jpg", "caption": f"picture {number}"} for number in [0, 1, 9, 2, 3]]
        (folder / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        img2dataset.download(
            url_list=str(folder / "list.jsonl"),
            input_format="jsonl",
            url_col="url",
            caption_col="caption",
            output_format="webdataset",
            output_folder=str(folder / "out"),
            processes_count=1,
            thread_count=1,
            image_size=16,
            resize_mode="keep_ratio",
        )
        server.shutdown()
        print(sorted(path.name for path in (folder / "out").iterdir()))
        (out / "img2dataset.tar").write_bytes((folder / "out/00000.tar").read_bytes())


def samples(path: Path):
    with open(path, "rb") as file:
        for sample in group_by_keys(tar_file_expander([{"url": path.name, "stream": file}])):
            kinds = [kind for kind in ["jpg", "jpeg", "png", "webp"] if kind in sample]
            caption = sample["txt"].decode() if "txt" in sample else json.loads(sample["json"])["caption"]
            checksum = f"{zlib.crc32(sample[kinds[0]]):08x}"
            yield {"key": sample["__key__"], "image_crc32": checksum, "caption": caption}


def main() -> None:
    out = HERE
    out.mkdir(exist_ok=True)
    # ustar has room for 255 bytes of a name, cut at a slash; the other forms for any.
    for name, form, longest in [
        ("ustar", tarfile.USTAR_FORMAT, 200),
        ("gnu", tarfile.GNU_FORMAT, 400),
        ("pax", tarfile.PAX_FORMAT, 400),
    ]:
        write_tar(out / f"{name}.tar", form, longest)
    write_img2dataset(out)
    names = ["ustar", "gnu", "pax", "img2dataset"]
    expected = {name: list(samples(out / f"{name}.tar")) for name in names}
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (out / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
