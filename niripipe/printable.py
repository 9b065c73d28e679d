"""Text from headers, file names and catalogues, made safe to show."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: object, *, lines: bool = False) -> str:
    r"""Return text with escapes in place of what would control a terminal or hide what stands there.

    Parameters
    ----------
    text : object
        Its text is taken.
    lines : bool
        Whether the text has several lines; else a line end becomes an escape, too.

    Returns
    -------
    str
        Control characters, such as ESC, become ``\x1b``; so do characters that change the direction of
        writing, lone surrogates, and spaces that are not what they look like. Letters of all languages stay.
    """
    whole = str(text)
    if whole.isprintable():
        return whole
    kept = "\n" if lines else ""
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in whole)
