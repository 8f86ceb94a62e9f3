"""Read TensorBoard's event files into plain data. Imports no torch."""

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
    """A logged value of a scalar."""

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
    """Summary of a histogram."""

    step: int
    num: float
    rms: float  # root mean square
    quantiles: tuple[float, ...]  # at QUANTILES


@dataclass
class Events:
    """Content of the event files of one directory, by tag: the latest value of each step, in the order of steps.

    Attributes:
        scalars: Series of scalars.
        pictures: The latest image of each tag.
        histograms: Series of histograms.
        seconds: Time from the first to the last event of a file, summed over all files; pauses before a resume do not
            count. NaN if there are no events.
        cut: Names of files that end within a record, because they are being written or are damaged.
    """

    scalars: dict[str, list[Scalar]] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    histograms: dict[str, list[Distribution]] = field(default_factory=dict)
    seconds: float = math.nan
    cut: list[str] = field(default_factory=list)


def read_events(folder: Path, scalars_only: bool = False) -> Events:
    """Read the event files of a directory, without subdirectories."""
    events = Events()
    scalars: dict[str, dict[int, Scalar]] = defaultdict(dict)
    histograms: dict[str, dict[int, Distribution]] = defaultdict(dict)
    durations = []
    for file, end in _files(folder):
        first = last = math.nan
        for event in _events(file, events.cut):
            first = min(event.wall_time, first)  # in this order, min and max ignore a NaN in the second argument
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
                    events.pictures[value.tag] = picture
                elif value.HasField("histo"):
                    histograms[value.tag][event.step] = _distribution(event.step, value.histo)
        durations.append(last - first)
    events.scalars = {tag: sorted(series.values()) for tag, series in scalars.items()}
    events.histograms = {tag: sorted(series.values()) for tag, series in histograms.items()}
    events.seconds = float(np.nansum(durations)) or math.nan
    return events


def quantiles(
    limits: Sequence[float], counts: Sequence[float], low: float, high: float, shares: Sequence[float] = QUANTILES
) -> tuple[float, ...]:
    """Return quantiles of a histogram, assuming that values are uniform within a bucket.

    Args:
        limits: Upper limit of each bucket, ascending; the first bucket begins at minus infinity.
        counts: Number of values in each bucket.
        low: The smallest value.
        high: The largest value.
        shares: Shares of the values below the quantiles, 0 to 1.
    """
    edges = np.clip(np.concatenate([[low], limits]), low, high)
    filled = np.asarray(counts) > 0
    if not filled.any():
        return (float("nan"),) * len(shares)
    below = np.concatenate([[0.0], np.cumsum(np.asarray(counts, float))])
    # two points per bucket, because the next bucket may start elsewhere after empty ones are removed
    values = np.stack([edges[:-1][filled], edges[1:][filled]], 1).ravel()
    ranks = np.stack([below[:-1][filled], below[1:][filled]], 1).ravel()
    return tuple(np.interp(np.asarray(shares) * below[-1], ranks, values).tolist())


def _distribution(step: int, histogram: Any) -> Distribution:
    spread = quantiles(histogram.bucket_limit, histogram.bucket, histogram.min, histogram.max)
    rms = (histogram.sum_squares / histogram.num) ** 0.5 if histogram.num else float("nan")
    return Distribution(step, histogram.num, rms, spread)


def _files(folder: Path) -> list[tuple[Path, float]]:
    """Return event files in the order of their creation, each with the step from which a later file replaces it.

    That is the step from which a run was resumed: TensorBoard's writers add a START event to the new file.
    """
    files, end = [], math.inf
    for file in sorted(folder.glob("*tfevents*"), reverse=True):  # the name contains the time of creation
        files.append((file, end))
        for event in _events(file, []):
            if event.session_log.status == SessionLog.START:
                end = min(end, event.step)
            if event.HasField("summary"):
                break
    return files[::-1]


def _events(file: Path, cut: list[str]) -> Iterator[Event]:
    """Yield the events of a file; stop at an incomplete one, and add the file to ``cut``.

    Without TensorFlow, TensorBoard's EventAccumulator computes checksums in Python: 3.0 s for a file of 14 MB, compared
    with 0.1 s here.
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
