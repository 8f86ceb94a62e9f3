"""Read TensorBoard's event files into plain data. No torch in here."""

import math
import os
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

HEAD, TAIL = struct.Struct("<QI"), 4  # of a record: length of the event with its checksum; checksum of the event, bytes
QUANTILES = (0.0, 0.0668, 0.1587, 0.3085, 0.5, 0.6915, 0.8413, 0.9332, 1.0)  # TensorBoard's: half standard deviations
MEDIAN = len(QUANTILES) // 2


class Scalar(NamedTuple):
    """A number of a series."""

    step: int
    wall_time: float  # seconds since 1970; NaN if it is not known
    value: float


class Picture(NamedTuple):
    """An encoded image: PNG, JPEG or GIF."""

    step: int
    width: int
    height: int
    data: bytes


class Distribution(NamedTuple):
    """What is kept of a histogram."""

    step: int
    num: float
    rms: float  # root mean square
    quantiles: tuple[float, ...]  # at QUANTILES


@dataclass
class Events:
    """All that the event files of one folder hold, by tag: one value a step, the latest, in the order of steps.

    Attributes:
        pictures: The latest of each tag.
        seconds: Time from the first event of a file to its last, all files together: a run that was resumed has
            several, and the pauses between do not count. NaN if there are no events.
        cut: Names of files that end within a record: they are still being written, or damaged.
    """

    scalars: dict[str, list[Scalar]] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    histograms: dict[str, list[Distribution]] = field(default_factory=dict)
    seconds: float = math.nan
    cut: list[str] = field(default_factory=list)


def read_events(folder: Path, scalars_only: bool = False) -> Events:
    """Read the event files of a folder, but not of those below it."""
    found = Events()
    scalars: dict[str, dict[int, Scalar]] = defaultdict(dict)
    histograms: dict[str, dict[int, Distribution]] = defaultdict(dict)
    durations = []
    for file, end in _files(folder):
        first = last = math.nan
        for event in _events(file, found.cut):
            first = min(event.wall_time, first)  # the time first: min and max keep it if the other is NaN
            last = max(event.wall_time, last)
            if event.step >= end:
                continue
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    scalars[value.tag][event.step] = Scalar(event.step, event.wall_time, value.simple_value)
                elif scalars_only:
                    continue
                elif value.HasField("image"):
                    image = value.image
                    picture = Picture(event.step, image.width, image.height, image.encoded_image_string)
                    found.pictures[value.tag] = picture
                elif value.HasField("histo"):
                    histograms[value.tag][event.step] = _distribution(event.step, value.histo)
        durations.append(last - first)
    found.scalars = {tag: sorted(series.values()) for tag, series in scalars.items()}
    found.histograms = {tag: sorted(series.values()) for tag, series in histograms.items()}
    found.seconds = float(np.nansum(durations)) or math.nan
    return found


def quantiles(
    limits: Sequence[float], counts: Sequence[float], low: float, high: float, shares: Sequence[float] = QUANTILES
) -> tuple[float, ...]:
    """Return quantiles of a histogram, as if values lay evenly within a bucket.

    Args:
        limits: Upper limit of each bucket, rising; the first bucket begins at minus infinity.
        counts: Number of values in each bucket.
        low: The smallest value.
        high: The largest value.
        shares: Shares of the values, 0 to 1, that lie below the quantiles.
    """
    edges = np.clip(np.concatenate([[low], limits]), low, high)
    filled = np.asarray(counts) > 0
    if not filled.any():
        return (float("nan"),) * len(shares)
    below = np.concatenate([[0.0], np.cumsum(np.asarray(counts, float))])
    # two points a bucket, since the next may begin elsewhere once empty ones are left out
    values = np.stack([edges[:-1][filled], edges[1:][filled]], 1).ravel()
    ranks = np.stack([below[:-1][filled], below[1:][filled]], 1).ravel()
    return tuple(np.interp(np.asarray(shares) * below[-1], ranks, values).tolist())


def _distribution(step: int, histogram: Any) -> Distribution:
    spread = quantiles(histogram.bucket_limit, histogram.bucket, histogram.min, histogram.max)
    rms = (histogram.sum_squares / histogram.num) ** 0.5 if histogram.num else float("nan")
    return Distribution(step, histogram.num, rms, spread)


def _files(folder: Path) -> list[tuple[Path, float]]:
    """Return event files in the order they were begun, each with the step from which on a later one takes its place.

    That is the step at which a run was resumed: TensorBoard's writers put a START into the file that they begin then.
    """
    files, end = [], math.inf
    for file in sorted(folder.glob("*tfevents*"), reverse=True):  # by name, which holds the time it was made
        files.append((file, end))
        for event in _events(file, []):
            if event.session_log.status == SessionLog.START:
                end = min(end, event.step)
            if event.HasField("summary"):
                break
    return files[::-1]


def _events(file: Path, cut: list[str]) -> Iterator[Event]:
    """Yield the events of a file up to one that is not whole, and add the file to ``cut`` then.

    TensorBoard's own EventAccumulator computes checksums in Python if TensorFlow is not installed: 3.0 s for a file of
    14 MB that is read in 0.1 s here.
    """
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        while head := stream.read(HEAD.size):
            length = HEAD.unpack(head)[0] if len(head) == HEAD.size else size
            if stream.tell() + length + TAIL > size:
                cut.append(file.name)
                return
            try:
                yield Event.FromString(stream.read(length + TAIL)[:length])
            except DecodeError:
                cut.append(file.name)
                return
