"""Small image files of many kinds, and the pixels that Pillow and transformers make of them.

Run by hand: `python tests/reference/preprocess.py` (pillow, transformers, torch, safetensors). It
draws every input itself. `expected.safetensors` holds, for `NAME.EXT@HxW`, the `[H, W, 3]` 8-bit
pixels of `Image.open(..).convert("RGB")` resized by the Pillow form of `BlipImageProcessor`, which
its rescale and normalisation keep exactly; `NAME.EXT@HxW/bilinear` those of the other filter;
`NAME.EXT@HxW/pixel_values` its normalised `[3, H, W]` result; and `NAME.EXT@HxW/upright` the pixels
of the processor that is given the path, and so turns the image as EXIF says.

With the photographs in place (`tests/reference/fetch_photographs.py tests/photographs`), their
224 x 224 results are written as well; see README.md for who took them.
"""

import io
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import Blip2Processor, BlipImageProcessor, PreTrainedTokenizerFast
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

HERE = Path(__file__).parent / "preprocess"
PHOTOGRAPHS = Path(__file__).parent.parent / "photographs"
RANDOM = np.random.default_rng(7)
expected = {}


def scene(width, height, noise=6.0):
    """Gradients, waves, hard edges, strokes like text, and noise: what resizing can get wrong."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    planes = [
        90 + 120 * x + 40 * np.sin(40 * y),
        200 - 150 * y + 30 * np.cos(25 * (x + y)),
        60 + 90 * x * y + 70 * np.sin(60 * x) ** 2,
    ]
    pixels = np.stack(planes, axis=-1)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse([width * 0.1, height * 0.2, width * 0.5, height * 0.8], fill=(240, 20, 30))
    draw.rectangle([width * 0.55, height * 0.1, width * 0.9, height * 0.45], fill=(10, 30, 200))
    draw.text((width * 0.3, height * 0.5), "BLIP-2", fill=(255, 255, 255))
    draw.line([0, height, width, 0], fill=(0, 0, 0))
    pixels = np.asarray(image) + RANDOM.normal(0, noise, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def processor(height, width, resample=Image.Resampling.BICUBIC):
    return BlipImageProcessorPil(size={"height": height, "width": width}, resample=resample)


def resized(image, height, width, resample=Image.Resampling.BICUBIC):
    values = processor(height, width, resample)(image, do_rescale=False, do_normalize=False)
    pixels = np.ascontiguousarray(np.moveaxis(np.asarray(values["pixel_values"][0]), 0, -1))
    assert pixels.dtype == np.uint8 and pixels.shape == (height, width, 3)
    return pixels


def case(name, content, *sizes, floats=False, bilinear=False, upright=False):
    """Writes `content` (bytes) to the file `name`, and what becomes of it at each size."""
    path = HERE / name
    path.write_bytes(content)
    image = Image.open(path).convert("RGB")
    # `convert` forgets alpha but not this note, for which transformers 5.23 (neither 4 nor LAVIS)
    # would turn the pixels of that colour white.
    image.info.pop("transparency", None)
    for height, width in sizes or [(32, 32)]:
        key = f"{name}@{height}x{width}"
        expected[key] = resized(image, height, width)
        if bilinear:
            expected[f"{key}/bilinear"] = resized(image, height, width, Image.Resampling.BILINEAR)
        if floats and height == width:
            values = processor(height, width)(image)["pixel_values"][0]
            expected[f"{key}/pixel_values"] = np.ascontiguousarray(values, dtype=np.float32)
        if upright:
            expected[f"{key}/upright"] = resized(str(path), height, width)


def encode(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(image, **options):
    return encode(image, "PNG", optimize=True, **options)


def raw_png(samples, color_type, chunks=()):
    """A PNG of 16-bit samples, `[height, width, channels]`, which Pillow itself can't write."""
    height, width, _ = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in body
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def samples16(width, height, channels):
    """Every bit of the low byte is used, so that rounding and cutting differ."""
    high = np.asarray(scene(width, height)).astype(np.uint16)
    high = np.concatenate([high, high[:, ::-1, :1]], axis=-1)[:, :, :channels]
    return high * 256 + RANDOM.integers(0, 256, high.shape, dtype=np.uint16)


def app14(content):
    return content.index(b"\xff\xee\x00\x0eAdobe")


def cmyk(image):
    """Ink values with a black plate of their own."""
    inks = 255 - np.asarray(image).astype(int)
    black = (inks.min(axis=-1, keepdims=True) * 0.6).astype(int)
    inks = np.concatenate([inks - black, black], axis=-1).clip(0, 255).astype(np.uint8)
    return Image.fromarray(inks, "CMYK")


def ycck(content_of, image):
    """Pillow writes only plain inks: give it those of YCCK, then set Adobe's transform flag."""
    inks = np.asarray(cmyk(image))
    rgb = Image.fromarray(255 - inks[:, :, :3])
    ycc = np.asarray(rgb.convert("YCbCr"))
    # Pillow inverts on writing; YCbCr must reach the file as it is, and the black plate inverted.
    planes = np.concatenate([255 - ycc, inks[:, :, 3:]], axis=-1)
    content = bytearray(content_of(Image.fromarray(planes, "CMYK")))
    content[app14(content) + 15] = 2
    return bytes(content)


def without_app14(content):
    start = app14(content)
    return content[:start] + content[start + 16 :]


def jpeg(image, **options):
    return encode(image, "JPEG", **{"quality": 90, **options})


HERE.mkdir(exist_ok=True)
for old in HERE.glob("*.*"):
    if old.is_file() and old.name != "README.md":
        old.unlink()

# The resize alone: lossless inputs, exact results.
case("rgb.png", png(scene(96, 72)), (32, 32), (24, 40), floats=True, bilinear=True)
case("small.png", png(scene(20, 14)), (56, 56), (9, 33), bilinear=True)
case("row.png", png(scene(57, 1)), (32, 32))
case("column.png", png(scene(1, 57)), (32, 32))
case("tall.png", png(scene(40, 76)), (24, 24), bilinear=True)
case("pixel.png", png(scene(1, 1)), (32, 32), floats=True)
case("narrow.png", png(scene(3, 160)), (32, 32))
extremes = RANDOM.integers(0, 2, (40, 47, 3), dtype=np.uint8) * 255
case("extremes.png", png(Image.fromarray(extremes)), (32, 32), (56, 56))

# PNG's kinds of pixels.
photo = scene(64, 48)
case("own_size.png", png(photo), (48, 64))
grey = photo.convert("L")
case("grey.png", png(grey))
case("grey_alpha.png", png(Image.merge("LA", [grey, grey.transpose(Image.Transpose.ROTATE_180)])))
case("grey_transparent_value.png", png(grey, transparency=int(np.asarray(grey)[0, 0])))
alpha = RANDOM.integers(0, 3, (48, 64), dtype=np.uint8) * 127
rgba = Image.fromarray(np.dstack([np.asarray(photo), alpha]), "RGBA")
case("rgba.png", png(rgba))
case("rgb_transparent_value.png", png(photo, transparency=photo.getpixel((0, 0))))
palette = photo.quantize(60, dither=Image.Dither.NONE)
case("palette.png", png(palette))
case("palette_alpha.png", png(palette, transparency=bytes(range(0, 240, 4))))
case("palette_4_bits.png", png(photo.quantize(11), bits=4))
case("one_bit.png", png(photo.convert("1")))
case("two_bits.png", png(Image.fromarray(np.asarray(grey) // 64 * 85), bits=2))
case("grey_16.png", raw_png(samples16(32, 24, 1) // 200, 0))
case("grey_16_transparent_value.png", raw_png(samples16(32, 24, 1) // 150, 0, [(b"tRNS", b"\0\x07")]))
case("grey_alpha_16.png", raw_png(samples16(32, 24, 2), 4))
case("rgb_16.png", raw_png(samples16(32, 24, 3), 2))
case("rgba_16.png", raw_png(samples16(32, 24, 4), 6))

# JPEG. At its own size no averaging hides what the decoder does.
own = scene(32, 48)
for name, options in {
    "444": {"subsampling": "4:4:4"},
    "422": {"subsampling": "4:2:2"},
    "420": {"subsampling": "4:2:0"},
    "420_progressive": {"subsampling": "4:2:0", "progressive": True},
    "420_coarse": {"subsampling": "4:2:0", "quality": 25},
    "420_restart": {"subsampling": "4:2:0", "restart_marker_blocks": 2},
    "rgb_components": {"keep_rgb": True},
}.items():
    case(f"{name}.jpg", jpeg(own, **options), (24, 24), (48, 32))
odd = scene(61, 43)
case("420_odd.jpg", jpeg(odd, subsampling="4:2:0"), (43, 61), (56, 56))
case("422_odd.jpg", jpeg(odd, subsampling="4:2:2"), (43, 61))
for width, height in [(1, 1), (1, 40), (40, 1), (3, 5), (17, 9)]:
    case(
        f"420_{width}x{height}.jpg",
        jpeg(scene(width, height), subsampling="4:2:0"),
        (16, 16),
        (height, width),
    )
case("grey.jpg", jpeg(own.convert("L")), (24, 24), (48, 32))
for name, content in {
    "cmyk_adobe": jpeg(cmyk(own)),
    "cmyk_plain": without_app14(jpeg(cmyk(own))),
    "ycck": ycck(jpeg, own),
}.items():
    case(f"{name}.jpg", content, (24, 24), (48, 32))
for orientation in [3, 6, 7]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    case(f"exif_{orientation}.jpg", jpeg(odd, exif=exif), (24, 40), upright=True)

# WebP.
case("lossless.webp", encode(photo, "WEBP", lossless=True), (32, 32))
case("lossless_alpha.webp", encode(rgba, "WEBP", lossless=True, exact=True), (32, 32))
case("lossy.webp", encode(own, "WEBP", quality=85), (24, 24), (48, 32))
case("lossy_odd.webp", encode(odd, "WEBP", quality=50), (43, 61))
lossy_alpha = rgba.crop((0, 0, 48, 36))
case("lossy_alpha.webp", encode(lossy_alpha, "WEBP", quality=85, exact=True), (32, 32), (36, 48))

# What transformers writes beside a model, for the reader and writer of these files.
vocabulary = Tokenizer(WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, unk_token="<unk>")
image_processor = BlipImageProcessor(size={"height": 224, "width": 224})
with tempfile.TemporaryDirectory() as folder:
    Blip2Processor(image_processor, tokenizer, num_query_tokens=32).save_pretrained(folder)
    (HERE / "hugging_face").mkdir(exist_ok=True)
    shutil.copy(Path(folder) / "processor_config.json", HERE / "hugging_face")

save_file(expected, HERE / "expected.safetensors")
for photograph in ["china", "flower"]:
    path = PHOTOGRAPHS / f"{photograph}.jpg"
    if path.exists():
        pixels = resized(Image.open(path).convert("RGB"), 224, 224)
        (HERE / f"{photograph}_224.png").write_bytes(png(Image.fromarray(pixels)))
    else:
        print(f"left out: {path} is not there")
total = sum(file.stat().st_size for file in HERE.rglob("*"))
print(f"{len(expected)} expected tensors, {total} bytes in all")
