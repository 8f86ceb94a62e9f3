"""Download one file, with a progress bar and a checksum."""

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from rich.progress import wrap_file

from atomic_files import write_atomically
from datamodules.errors import DataError

TIMEOUT = 20  # seconds without data after which the site counts as unreachable; torchvision would wait for minutes


def md5_of(path: Path) -> str:
    """Return the MD5 of a file as 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def download(url: str, target: Path, md5: str) -> None:
    """Download ``url`` to ``target``, which appears only when it is complete and its MD5 matches.

    Raises:
        DataError: The site cannot be reached, the connection breaks, or the file is another one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with write_atomically(target) as partial:
            with (
                urllib.request.urlopen(url, timeout=TIMEOUT) as response,
                wrap_file(response, response.length or 0, description=f"Downloading {target.name}") as source,
                partial.open("wb") as file,
            ):
                shutil.copyfileobj(source, file)
            if (got := md5_of(partial)) != md5:
                raise DataError(f"Expected MD5 {md5} of {url}, but got {got}: it is damaged or another file. Try again")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DataError(f"The download of {url} failed: {getattr(error, 'reason', None) or error}") from error
