"""pictures.safetensors: JPEG and PNG files as Pillow writes them, what Pillow reads from them, and its scaling."""
import io

import numpy as np
from PIL import Image

from fixture import finish

H, W = 24, 40
y, x = np.mgrid[0:H, 0:W]
# Smooth, so that what a JPEG loses is small.
colour = np.stack([5 * x + 20, 220 - 7 * y, 128 + 90 * np.sin(x / 9.0) * np.cos(y / 7.0)], -1).round().astype(np.uint8)
rgb = Image.fromarray(colour)
grey = rgb.convert("L")
tensors = {"colour": colour, "grey": np.asarray(grey)}


def file(name, image, **how):
    """The bytes of a file, and what Pillow reads from it."""
    out = io.BytesIO()
    image.save(out, **how)
    tensors[f"{name}.file"] = np.frombuffer(out.getvalue(), np.uint8).copy()
    if name not in ("jpeg_cmyk", "png_16", "png_transparent"):
        read = Image.open(out)
        tensors[f"{name}.values"] = np.asarray(read.convert("L" if read.mode in ("L", "1") else "RGB"))


file("jpeg", rgb, format="JPEG", quality=90, subsampling=0)
file("jpeg_subsampled", rgb, format="JPEG", quality=90, subsampling=2)
file("jpeg_progressive", rgb, format="JPEG", quality=90, progressive=True)
file("jpeg_grey", grey, format="JPEG", quality=90)
file("jpeg_cmyk", rgb.convert("CMYK"), format="JPEG", quality=90)
file("png", rgb, format="PNG")
file("png_grey", grey, format="PNG")
file("png_palette", rgb.quantize(16), format="PNG")
file("png_bits", grey.convert("1"), format="PNG")
file("png_16", Image.fromarray(257 * np.asarray(grey).astype(np.uint16)), format="PNG")
opaque = rgb.convert("RGBA")
file("png_opaque", opaque, format="PNG")
opaque.putalpha(grey)
file("png_transparent", opaque, format="PNG")

# The square in the middle, smaller and larger.
middle = rgb.crop(((W - H) // 2, 0, (W + H) // 2, H))
for size in (7, 16, 61):
    tensors[f"scaled.{size}"] = np.asarray(middle.resize((size, size), Image.Resampling.BILINEAR))

finish("pictures", tensors, {"height": H, "width": W})
