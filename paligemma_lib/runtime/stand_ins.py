"""Recognizes what lies in place of a large file that was never downloaded.

told = stand_in(first_bytes)          # "it is only a pointer of git-lfs ..."; None: nothing known
"""

_LFS = b"version https://git-lfs"
_WEB = (b"<!doctype html", b"<html")


def stand_in(head: bytes) -> str | None:
    """Returns what a file is instead of its content, and what to do; None if it looks like none.

    Args:
      head: the first bytes of the file, 64 or more.
    """
    if head.startswith(_LFS):
        return (
            "it is only a pointer of git-lfs to the file: run `git lfs install` and `git lfs pull` "
            "in that folder, or download the file itself"
        )
    if head.lstrip()[:20].lower().startswith(_WEB):
        return (
            "it is a web page that was saved in its place: the address needs a login, or leads to "
            "a page about the file. Accept the conditions there if there are any, and download "
            "the file itself"
        )
    return None
