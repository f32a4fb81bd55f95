"""Pictures from PNG, JPEG and WebP files, cropped and resized to one size."""

from __future__ import annotations

import io
import os
import warnings

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_plugins.text_image.data.captions import needs

__all__ = ["SUFFIXES", "read_image", "to_bytes", "to_unit"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
_PLAIN = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr")


def read_image(source: str | os.PathLike[str] | bytes, size: int, name: str | None = None) -> Tensor:
    """One picture, (3, size, size) uint8: its largest central square, resized (Lanczos), upright as its EXIF says.

    Transparency is laid on white, a palette looked up, grey repeated, 16 bits rounded to 8, CMYK converted without a
    profile; of an animation, the first picture is taken.

    Args:
        source: a path, or the bytes of such a file.
        size: of a side, >= 1.
        name: to call it by in errors; default: the path.

    Raises:
        DiffuseError: there is no such file, it is no PNG, JPEG or WebP, it is cut off or damaged, its pixels are more
            than Pillow's ``Image.MAX_IMAGE_PIXELS``, or of another mode.
    """
    needs("PIL")
    import PIL
    from PIL import Image

    if size < 1:
        raise DiffuseError(f"picture: expected a size of at least 1 pixel, got {size}")
    name = name or ("of bytes" if isinstance(source, bytes) else str(source))
    if not isinstance(source, bytes) and not os.path.isfile(source):
        raise DiffuseError(f"picture {name}: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
            with Image.open(stream, formats=_FORMATS) as picture:
                picture.load()
                return _square(picture, size)
    except PIL.UnidentifiedImageError:
        raise DiffuseError(f"picture {name}: expected PNG, JPEG or WebP, it is none of them or damaged") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise DiffuseError(f"picture {name}: expected at most {limit} pixels, it says that it has more") from None
    except DiffuseError as error:
        raise DiffuseError(f"picture {name}: {error}") from None
    except Exception as error:  # a damaged file can raise whatever its decoder stumbles over
        raise DiffuseError(f"picture {name}: damaged or cut off ({' '.join(str(error).split())})") from None


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 pixels as float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1.0


def to_bytes(images: Tensor) -> Tensor:
    """Floats, cut to [-1, 1], as uint8 pixels; the inverse of ``to_unit``."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _square(picture, size: int) -> Tensor:
    import numpy as np
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        values = (np.asarray(picture).astype(np.float32) / 257).round().astype(np.uint8)
        picture = Image.fromarray(values)
    elif picture.mode not in _PLAIN:
        raise DiffuseError(f"expected one of the modes {', '.join(_PLAIN)} or I;16, got {picture.mode}")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    fitted = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).contiguous()
