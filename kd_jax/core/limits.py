"""Limits on what is read from files that others made; each is far above what anybody needs."""

ROW = 4 * 1024**2
"""Bytes of one line of a text file or table: some 600,000 words."""

PICTURE = 256 * 1024**2
"""Bytes of one encoded picture. How many pixels it may hold is Pillow's own limit, 89 million."""

OUTPUTS = 64 * 1024**3
"""Bytes of the arrays of an .npz file of outputs: four million vectors of 4,096 numbers."""

PICTURE_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
"""What pictures are decoded from, whatever their names say: other decoders start programs, or are
seldom used and little tested."""


def in_words(size: int) -> str:
    """Returns a number of bytes for a message."""
    return f"{size / 1024**2:.0f} MiB"
