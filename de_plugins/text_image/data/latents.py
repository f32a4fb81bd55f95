"""Pictures as latents of an autoencoder, and back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_plugins.text_image.data.captions import needs
from de_plugins.text_image.data.images import to_bytes, to_unit

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

__all__ = ["Latents"]


@attrs.frozen(eq=False)
class Latents:
    """diffusers' ``AutoencoderKL`` for pictures of ``size`` pixels a side: z = (mean of q(z | x) - shift) * scale.

    Scale and shift are those of the autoencoder's configuration and bring the latents to about unit variance
    (Rombach et al. 2022, arXiv 2112.10752, appendix G). The mean, not a draw: the same picture gives the same latent.

    Attributes:
        vae: the autoencoder, in evaluation mode, on any device.
        size: of a picture's side, a multiple of what the autoencoder shrinks it by.
        batch: how many pictures go through it at once.
    """

    vae: AutoencoderKL
    size: int
    batch: int = 16

    def __attrs_post_init__(self) -> None:
        if self.size < 1 or self.size % self._factor:
            raise DiffuseError(f"latents: expected a size that {self._factor} divides, got {self.size}")
        self.vae.eval().requires_grad_(False)

    @classmethod
    def load(cls, name: str, size: int, *, device: torch.device | str = "cpu", batch: int = 16) -> Latents:
        """The autoencoder from a local directory, or of that name on the Hugging Face hub; safetensors only.

        Raises:
            DiffuseError: diffusers is missing, there is no such autoencoder, or ``size`` does not suit it.
        """
        local = bool(name) and Path(name).is_dir()
        if not local and not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
            raise DiffuseError(f"autoencoder {name}: expected a directory or a name on the hub such as owner/name")
        needs("diffusers")
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        try:
            vae = AutoencoderKL.from_pretrained(
                name, use_safetensors=True, local_files_only=local, low_cpu_mem_usage=False
            )
        except Exception as error:  # OSError, ValueError, RuntimeError, JSON's and safetensors' own
            reason = " ".join(str(error).split())
            raise DiffuseError(f"autoencoder {name}: it cannot be loaded ({reason})") from error
        assert isinstance(vae, AutoencoderKL)
        vae.to(device)  # pyright: ignore[reportArgumentType] # its decorator hides the signature
        return cls(vae, size, batch)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one latent: channels, height, width."""
        side = self.size // self._factor
        return (self.vae.config["latent_channels"], side, side)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """uint8 pixels (n, 3, size, size) as latents (n, *shape), float32, on the same device.

        Raises:
            DiffuseError: another shape or dtype.
        """
        if pixels.dtype != torch.uint8 or pixels.shape[1:] != (3, self.size, self.size):
            expected = f"uint8 (n, 3, {self.size}, {self.size})"
            raise DiffuseError(f"pictures: expected {expected}, got {pixels.dtype} {tuple(pixels.shape)}")
        latents = torch.empty(len(pixels), *self.shape, device=pixels.device)
        for rows in torch.arange(len(pixels)).split(self.batch) if len(pixels) else ():
            latents[rows] = self._encode(pixels[rows]).to(pixels.device)
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (n, *shape) as uint8 pixels (n, 3, size, size), on the same device.

        Raises:
            DiffuseError: another shape.
        """
        if latents.shape[1:] != self.shape:
            expected = f"(n, {', '.join(map(str, self.shape))})"
            raise DiffuseError(f"latents: expected {expected} for this autoencoder, got {tuple(latents.shape)}")
        pixels = torch.empty(len(latents), 3, self.size, self.size, dtype=torch.uint8, device=latents.device)
        for rows in torch.arange(len(latents)).split(self.batch) if len(latents) else ():
            pixels[rows] = self._decode(latents[rows]).to(latents.device)
        return pixels

    def _encode(self, pixels: Tensor) -> Tensor:
        images = to_unit(pixels.to(self.vae.device)).to(self.vae.dtype)
        mean = self.vae.encode(images, return_dict=False)[0].mode()
        return (mean.float() - self._shift) * self._scale

    def _decode(self, latents: Tensor) -> Tensor:
        z = latents.to(self.vae.device).float() / self._scale + self._shift
        decoded = self.vae.decode(z.to(self.vae.dtype), return_dict=False)[0]  # pyright: ignore[reportArgumentType]
        return to_bytes(decoded.float())

    @property
    def _factor(self) -> int:
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    def _scale(self) -> float:
        return self.vae.config["scaling_factor"]

    @property
    def _shift(self) -> float:
        return self.vae.config.get("shift_factor") or 0.0
