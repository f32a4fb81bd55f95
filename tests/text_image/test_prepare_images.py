"""Pictures of every mode and format, whole and broken, and latents of them."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from de_core import DiffuseError
from de_plugins.text_image.data.images import read_image, to_bytes, to_unit
from de_plugins.text_image.data.latents import Latents


def gradient(width: int = 24, height: int = 24) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def content(picture: Image.Image, kind: str = "PNG", **kwargs) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **kwargs)
    return stream.getvalue()


def expected(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize(("kind", "kwargs", "off"), [("PNG", {}, 0), ("WEBP", {"lossless": True}, 0)])
def test_a_picture_of_the_right_size_comes_as_it_is(tmp_path, kind, kwargs, off):
    gradient().save(tmp_path / "x", kind, **kwargs)
    assert torch.equal(read_image(tmp_path / "x", 24), expected(gradient()))
    assert torch.equal(read_image((tmp_path / "x").read_bytes(), 24), expected(gradient()))


def test_a_jpeg_is_near():
    pixels = read_image(content(gradient(), "JPEG", quality=95, subsampling=0), 24)
    assert (pixels.int() - expected(gradient()).int()).abs().max() <= 8


def test_the_central_square_is_taken():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (read_image(content(Image.fromarray(wide)), 10) == 200).all()
    assert (read_image(content(Image.fromarray(wide.transpose(1, 0, 2))), 10) == 200).all()


def test_resizing_keeps_the_mean_and_works_both_ways():
    for side in (6, 48):
        pixels = read_image(content(gradient()), side)
        assert pixels.shape == (3, side, side)
        assert (pixels.float().mean((1, 2)) - expected(gradient()).float().mean((1, 2))).abs().max() < 1.5


def test_transparency_lies_on_white():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    assert (read_image(content(clear), 8) == 255).all()
    assert read_image(content(half), 8)[:, 0, 0].tolist() == [255, 127, 127]
    assert (read_image(content(clear.convert("LA")), 8) == 255).all()
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert read_image(content(palette), 8)[:, 0, 0].tolist() == [10, 20, 30]
    assert (read_image(content(palette, transparency=1), 8) == 255).all()


def test_grey_black_and_white_sixteen_bits_and_cmyk():
    grey = gradient().convert("L")
    assert torch.equal(read_image(content(grey), 24), expected(grey))
    assert torch.equal(read_image(content(grey.convert("1")), 24), expected(grey.convert("1")))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    assert torch.equal(read_image(content(deep), 24), expected(grey))
    inks = read_image(content(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95), 8)
    assert (inks.int() - torch.tensor([255, 0, 0])[:, None, None]).abs().max() <= 3


def test_a_picture_is_turned_as_its_exif_says():
    sideways = np.zeros((8, 8, 3), np.uint8)
    sideways[:, :4] = 255  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left becomes top
    deep = Image.fromarray(sideways[..., 0].astype(np.uint16) * 257)
    for picture in (Image.fromarray(sideways), deep):
        pixels = read_image(content(picture, exif=exif), 8)
        assert (pixels[:, :4] == 255).all()
        assert (pixels[:, 4:] == 0).all()


def test_an_animation_gives_its_first_picture():
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    pixels = read_image(content(first, "WEBP", save_all=True, append_images=[second], lossless=True), 8)
    assert pixels[:, 0, 0].tolist() == [255, 0, 0]


def bomb(side: int) -> bytes:
    """A small PNG that says it is ``side`` pixels wide and high."""
    png = content(Image.new("L", (1, 1)))
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected PNG, JPEG or WebP"),
        (b"not a picture at all", "expected PNG, JPEG or WebP"),
        (content(gradient(), "GIF"), "expected PNG, JPEG or WebP"),
        (content(gradient(), "BMP"), "expected PNG, JPEG or WebP"),
        (content(gradient())[:80], "damaged or cut off"),
        (content(gradient(99, 99), "JPEG")[:900], "damaged or cut off"),
        (bomb(10_000), "expected at most 89,478,485 pixels"),
        (bomb(60_000), "expected at most 89,478,485 pixels"),
    ],
)
def test_broken_pictures_are_named_in_one_sentence(data, message, tmp_path):
    (tmp_path / "b.png").write_bytes(data)
    with pytest.raises(DiffuseError, match=message) as caught:
        read_image(tmp_path / "b.png", 8)
    assert str(caught.value).startswith(f"picture {tmp_path / 'b.png'}: ")
    assert "\n" not in str(caught.value)


def test_every_cut_and_flip_is_read_or_refused():
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = content(gradient(), kind)
        for _ in range(60):
            data = bytearray(whole)
            for at in rng.integers(0, len(data), 3):
                data[at] = rng.integers(256)
            with contextlib.suppress(DiffuseError):
                assert read_image(bytes(data[: rng.integers(1, len(data) + 1)]), 8).shape == (3, 8, 8)


def test_missing_and_wrong_arguments(tmp_path):
    for path in (tmp_path / "no.png", tmp_path):
        with pytest.raises(DiffuseError, match="there is no such file"):
            read_image(path, 8)
    with pytest.raises(DiffuseError, match="a size of at least 1 pixel, got 0"):
        read_image(content(gradient()), 0)


def test_pixels_to_units_and_back():
    pixels = torch.arange(256, dtype=torch.uint8)
    units = to_unit(pixels)
    assert (units.min(), units.max()) == (-1, 1)
    assert torch.equal(to_bytes(units), pixels)
    assert to_bytes(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    """A tiny autoencoder, never trained, which shrinks by 2."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(
            block_out_channels=(4, 8),
            norm_num_groups=4,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            scaling_factor=0.5,
            shift_factor=0.25,
        )
    folder = tmp_path_factory.mktemp("vae")
    vae.save_pretrained(folder)
    return str(folder)


def test_latents_are_the_scaled_mean_and_decode_undoes_the_scale(vae_folder):
    latents = Latents.load(vae_folder, 16, batch=3)
    assert latents.shape == (4, 8, 8)
    pixels = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    z = latents.encode(pixels)
    with torch.no_grad():
        mean = latents.vae.encode(to_unit(pixels)).latent_dist.mean
        decoded = latents.vae.decode(mean).sample
    torch.testing.assert_close(z, (mean - 0.25) * 0.5, atol=1e-5, rtol=1e-5)  # batches of 3 and 2 against 5
    back = latents.decode(z)
    assert back.shape == pixels.shape
    assert (back.int() - to_bytes(decoded).int()).abs().max() <= 1
    assert latents.encode(pixels[:0]).shape == (0, 4, 8, 8)
    assert latents.decode(z[:0]).shape == (0, 3, 16, 16)
    assert not any(p.requires_grad for p in latents.vae.parameters())


def test_latents_of_the_wrong_size(vae_folder, tmp_path):
    latents = Latents.load(vae_folder, 16)
    with pytest.raises(
        DiffuseError, match=r"^latents: expected \(n, 4, 8, 8\) for this autoencoder, got \(1, 4, 4, 4\)$"
    ):
        latents.decode(torch.zeros(1, 4, 4, 4))
    with pytest.raises(
        DiffuseError, match=r"^pictures: expected uint8 \(n, 3, 16, 16\), got torch.uint8 \(1, 3, 8, 8\)$"
    ):
        latents.encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(DiffuseError, match=r"got torch.float32 \(1, 3, 16, 16\)"):
        latents.encode(torch.zeros(1, 3, 16, 16))
    with pytest.raises(DiffuseError, match="a size that 2 divides, got 15"):
        Latents.load(vae_folder, 15)


@pytest.mark.parametrize("content", [None, "{}", "no json", '{"_class_name": "AutoencoderKL"}'])
def test_what_is_no_autoencoder(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(DiffuseError, match=r"^autoencoder .*: it cannot be loaded \(.+\)$"):
        Latents.load(str(tmp_path), 16)


@pytest.mark.parametrize("name", ["", "/nowhere/at/all", "nobody", "../vae"])
def test_what_is_neither_a_directory_nor_a_name_on_the_hub(name):
    with pytest.raises(DiffuseError, match="expected a directory or a name on the hub"):
        Latents.load(name, 16)
