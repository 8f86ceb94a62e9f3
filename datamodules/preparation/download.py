"""Download one file, with a progress bar and a checksum."""

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from atomic_files import write_atomically
from datamodules.errors import DataError

CHUNK = 1 << 20  # bytes read at a time
TIMEOUT = 20  # seconds without data after which the site counts as unreachable


def md5_of(path: Path) -> str:
    """Return the MD5 of a file as 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def download(url: str, target: Path, md5: str, size: int) -> None:
    """Download ``url`` to ``target``, which appears only when it is complete and its MD5 matches.

    Args:
        url: URL of the file.
        target: Path of the downloaded file.
        md5: MD5 in 32 hexadecimal digits.
        size: Size in bytes; further data is not stored.

    Raises:
        DataError: The site cannot be reached, the connection breaks, or the file is another one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5()
    columns = (TextColumn("Downloading {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        with (
            write_atomically(target) as partial,
            urllib.request.urlopen(url, timeout=TIMEOUT) as response,
            partial.open("wb") as file,
            Progress(*columns, TimeRemainingColumn()) as progress,
        ):
            task = progress.add_task(target.name, total=size)
            while chunk := response.read(CHUNK):
                if file.tell() + len(chunk) > size:
                    raise DataError(
                        f"Expected {size} bytes from {url}, but got more: it is another file. Get it by other means."
                    )
                file.write(chunk)
                digest.update(chunk)
                progress.update(task, advance=len(chunk))
            if digest.hexdigest() != md5:
                raise DataError(
                    f"Expected MD5 {md5} of {url}, but got {digest.hexdigest()}: the download is damaged or was "
                    "replaced. Try again, or get the file by other means."
                )
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"The download of {url} failed: {reason}") from error
