"""Text with images. The digits demo lives here: pictures, captions, labels and ink shares by one joint model."""

__all__: list[str] = []
