"""Augmented pixels as LAVIS's operations make them, and crops as torchvision and Pillow make them.

Run by hand: `python tests/reference/augment.py` (numpy, pillow, safetensors and OpenCV 4.10: version
5 warps with other arithmetic; LAVIS pins 4.5). It draws its input itself. `expected.safetensors`
holds `image` (`[H, W, 3]`, 8 bits) and, for `OPERATION` or `OPERATION:NUMBER`, what becomes of it;
`crop:LEFT,TOP,WIDTH,HEIGHT,SIZE` is Pillow's `crop` and bicubic `resize`; `crop:...,flip` mirrors it.

Reference: lavis/processors/randaugment.py, blip_processors.py (`blip_image_train`).
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file

HERE = Path(__file__).parent / "augment"
GREY = (128, 128, 128)


def scene(width, height):
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        40 + 130 * x / width + 30 * np.sin(y / 3),
        200 - 150 * y / height + 20 * np.cos((x + y) / 4),
        60 + 60 * ((x // 7 + y // 5) % 2) + 70 * np.sin(x * y / 90) ** 2,
    ]
    return np.stack(planes, -1).clip(20, 240).astype(np.uint8)


def warped(image, matrix):
    size = image.shape[1], image.shape[0]
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=GREY)


def rotated(image, degrees):
    height, width = image.shape[:2]
    return warped(image, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1))


def sharpened(image, factor):
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 5
    smooth = cv2.filter2D(image, -1, kernel / 13)[1:-1, 1:-1].astype(np.float32)
    result = image.astype(np.float32)
    result[1:-1, 1:-1] = smooth + np.float32(factor) * (result[1:-1, 1:-1] - smooth)
    return result.clip(0, 255).astype(np.uint8)


def brightened(image, factor):
    table = (np.arange(256, dtype=np.float32) * np.float32(factor)).clip(0, 255)
    return table.astype(np.uint8)[image]


image = scene(41, 33)
pillow = Image.fromarray(image)
single = lambda *rows: np.array(rows, np.float32)
expected = {
    "image": image,
    "auto_contrast": np.asarray(ImageOps.autocontrast(pillow)),
    "equalize": np.asarray(ImageOps.equalize(pillow)),
}
for factor in (0.1, 0.64, 1.0, 1.36, 1.9):
    expected[f"brightness:{factor}"] = brightened(image, factor)
    expected[f"sharpness:{factor}"] = sharpened(image, factor)
for factor in (-0.3, -0.15, 0.06, 0.15):
    expected[f"shear_x:{factor}"] = warped(image, single([1, factor, 0], [0, 1, 0]))
    expected[f"shear_y:{factor}"] = warped(image, single([1, 0, 0], [factor, 1, 0]))
for offset in (-10.0, -5.0, 2.5, 5.0):
    expected[f"translate_x:{offset}"] = warped(image, single([1, 0, -offset], [0, 1, 0]))
    expected[f"translate_y:{offset}"] = warped(image, single([1, 0, 0], [0, 1, -offset]))
for degrees in (-30.0, -15.0, 3.0, 15.0):
    expected[f"rotate:{degrees}"] = rotated(image, degrees)
for left, top, width, height, size in [(0, 0, 41, 33, 28), (7, 3, 30, 21, 28), (20, 11, 13, 19, 42)]:
    cut = pillow.crop((left, top, left + width, top + height))
    cut = cut.resize((size, size), Image.Resampling.BICUBIC)
    name = f"crop:{left},{top},{width},{height},{size}"
    expected[name] = np.asarray(cut)
    expected[name + ",flip"] = np.asarray(ImageOps.mirror(cut))

HERE.mkdir(exist_ok=True)
save_file({name: np.ascontiguousarray(value) for name, value in expected.items()}, HERE / "expected.safetensors")
print(len(expected), "entries with OpenCV", cv2.__version__)
