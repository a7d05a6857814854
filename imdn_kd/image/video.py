"""Video files: their frames in RGB, and H.264 files with the sound, timing and colours of another file.

What reads and writes them is PyAV (https://pyav.org), of the extra `video`.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imdn_kd.errors import InputError
from imdn_kd.image.reader import naming_errors as naming_image_errors
from imdn_kd.image.reader import require_file
from imdn_kd.utils.extras import how_to_install
from imdn_kd.utils.text import one_line

if TYPE_CHECKING:
    import av

Rgb = NDArray[np.uint8]
"""H x W x 3."""

WRITABLE_VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".mkv"})
_READABLE = WRITABLE_VIDEOS | {".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv"}
_SUBSAMPLING = {"yuv420p": (2, 2), "yuv422p": (2, 1), "yuv444p": (1, 1)}
"""How many columns and rows of Y share a value of colour, in the formats that are kept."""
_FULL_RANGE = {"yuvj420p": "yuv420p", "yuvj422p": "yuv422p", "yuvj444p": "yuv444p"}
_PQ, _HLG = 16, 18
_MATRICES = (1, 4, 5, 6, 7, 9)  # numbers of ITU-T H.273, as those of primaries and transfer
_UNKNOWN, _BT709, _BT601 = 2, 1, 6
_LIMITED, _FULL = 1, 2
_CODEC = "libx264"
# B-frames would make the time stamps of one part depend on those of the next.
_SETTINGS = {"preset": "veryfast", "crf": "16", "bf": "0"}
_local = threading.local()


def is_video_name(path: Path | str) -> bool:
    """Whether a file is taken for a video: by its suffix."""
    return Path(path).suffix.lower() in _READABLE


def require_pyav() -> None:
    """Refuse where PyAV is not installed: `video.not-installed`."""
    if find_spec("av") is None:
        raise InputError(f"videos need PyAV; {how_to_install('video')}", code="video.not-installed")


@dataclass(frozen=True)
class VideoInfo:
    """The pictures of a video file.

    Attributes:
        width: of the stored frames, px.
        height: of the stored frames, px.
        time_base: seconds, of which the time stamps are multiples.
        rate: frames per second on average; None where it is unknown.
        count: frames by the header, an estimate; None where it is unknown.
        pixel_format: `yuv420p`, `yuv422p` or `yuv444p`.
        matrix: of Y'CbCr, as ITU-T H.273 numbers it. Where the file states none, that which players take for its size.
        full_range: whether Y goes from 0 to 255, instead of 16 to 235.
        primaries: by H.273; 2 is unknown.
        transfer: by H.273; 2 is unknown.
        aspect: width of a pixel / height of a pixel, None where it is unknown.
        rotation: by which players turn the frames, degrees counter-clockwise.
    """

    width: int
    height: int
    time_base: Fraction
    rate: Fraction | None
    count: int | None
    pixel_format: str
    matrix: int
    full_range: bool
    primaries: int
    transfer: int
    aspect: Fraction | None
    rotation: int


@dataclass(frozen=True)
class Moment:
    """When a frame is shown: its time stamp, and its duration or 0 where it is unknown, in time bases."""

    time: int
    duration: int


def read_info(path: Path) -> VideoInfo:
    """What a file says of its pictures, and its first frame.

    Raises:
        InputError: `video.damaged`, `video.no-pictures`, or `video.cannot-keep`: what the result would not have (10
            bits, HDR, transparency, colours of another kind); or as `read_image` for what is no file.
    """
    with naming_image_errors(path):
        require_file(path)
    with naming_errors(path), _open(path) as file:
        stream = _stream_of(path, file)
        frame = next(file.decode(stream), None)
        if frame is None:
            raise InputError(f"{path}: has no frame that can be read; get a fresh copy", code="video.no-pictures")
        stored = frame.format.name
        pixel_format = _FULL_RANGE.get(stored, stored)
        if pixel_format not in _SUBSAMPLING:
            raise _cannot_keep(path, f"pixels of the format {stored}, not 8 bits of Y'CbCr without transparency")
        if frame.color_trc in (_PQ, _HLG):
            raise _cannot_keep(path, "HDR")
        matrix = int(frame.colorspace)
        if matrix == _UNKNOWN:
            # As players do, https://mpv.io/manual/master/#video-filters-format
            matrix = _BT709 if frame.width >= 1280 or frame.height > 576 else _BT601
        if matrix not in _MATRICES:
            raise _cannot_keep(path, f"colours by matrix {matrix} of H.273")
        return VideoInfo(
            frame.width,
            frame.height,
            Fraction(stream.time_base),
            stream.average_rate and Fraction(stream.average_rate),
            stream.frames or _count(file, stream),
            pixel_format,
            matrix,
            stored in _FULL_RANGE or frame.color_range == _FULL,
            int(frame.color_primaries),
            int(frame.color_trc),
            stream.sample_aspect_ratio or None,
            frame.rotation,
        )


def check_size(info: VideoInfo, width: int, height: int) -> None:
    """Refuse a size that the pixel format cannot have: `size.impossible`."""
    columns, rows = _SUBSAMPLING[info.pixel_format]
    if width % columns or height % rows:
        raise InputError(
            f"videos of the format {info.pixel_format} have sides that are multiples of {columns} and {rows} px, not "
            f"{width}x{height}; choose another scale or size",
            code="size.impossible",
        )


def decode_video(path: Path, info: VideoInfo, skip: int = 0) -> Iterator[tuple[Moment, Any]]:
    """The frames of a file after the first `skip` ones, each with its moment; see `to_rgb`.

    Raises:
        InputError: as `read_info`; `video.cannot-keep`, also where the size changes or time stamps are missing.
    """
    last: int | None = None
    with naming_errors(path), _open(path) as file:
        stream = _stream_of(path, file)
        stream.thread_type = "AUTO"
        for number, frame in enumerate(file.decode(stream)):
            if number < skip:
                last = frame.pts
                continue
            stored = _FULL_RANGE.get(frame.format.name, frame.format.name)
            if (frame.width, frame.height, stored) != (info.width, info.height, info.pixel_format):
                raise _cannot_keep(path, "frames whose size or format changes")
            if frame.interlaced_frame:
                raise _cannot_keep(path, "interlaced frames", "deinterlace it first")
            if frame.pts is None or (last is not None and frame.pts <= last):
                raise _cannot_keep(path, "frames without time stamps that go up", "save it as .mkv or .mp4 first")
            last = frame.pts
            yield Moment(frame.pts, frame.duration or 0), frame


def to_rgb(frame: Any, info: VideoInfo) -> Rgb:  # noqa: ANN401 - an av.VideoFrame
    """The pixels of a frame, full range; colours between those that are stored are interpolated bicubically."""
    large = _reformatter().reformat(
        frame,
        format="rgb24",
        src_colorspace=info.matrix,
        dst_colorspace=info.matrix,
        src_color_range=_range_of(info),
        dst_color_range=_FULL,
        interpolation=_interpolation(),
        threads=1,
    )
    pixels: Rgb = large.to_ndarray()
    return pixels


def from_rgb(pixels: Rgb, info: VideoInfo) -> Any:  # noqa: ANN401 - an av.VideoFrame
    """The frame of these pixels in the format and colours of a video."""
    import av

    return _reformatter().reformat(
        av.VideoFrame.from_ndarray(pixels, "rgb24"),
        format=info.pixel_format,
        src_colorspace=info.matrix,
        dst_colorspace=info.matrix,
        src_color_range=_FULL,
        dst_color_range=_range_of(info),
        interpolation=_interpolation(),
        threads=1,
    )


def encode_part(path: Path, frames: Iterable[tuple[Moment, Any]], info: VideoInfo, size: tuple[int, int]) -> int:
    """Encode frames, beginning with a key frame, into a file that `join_parts` reads; returns how many there were.

    Args:
        path: the file.
        frames: from `from_rgb`.
        info: of the source.
        size: width and height of the frames, px.
    """
    import av

    context: Any = av.CodecContext.create(_CODEC, "w")
    _configure(context, info, size)
    moments: list[Moment] = []
    packets: list[Any] = []
    for moment, frame in frames:
        frame.pts, frame.time_base = moment.time, info.time_base
        moments.append(moment)
        packets += context.encode(frame)
    if not moments:
        return 0
    packets += context.encode(None)
    with path.open("wb") as file:
        np.savez(
            file,
            times=np.array([moment.time for moment in moments], np.int64),
            durations=np.array([moment.duration for moment in moments], np.int64),
            sizes=np.array([packet.size for packet in packets], np.int64),
            keys=np.array([packet.is_keyframe for packet in packets], bool),
            data=np.frombuffer(b"".join(bytes(packet) for packet in packets), np.uint8),
        )
    return len(moments)


def part_length(path: Path) -> int:
    """How many frames there are in a file of `encode_part`."""
    with np.load(path) as content:
        return len(content["times"])


def join_parts(
    path: Path, parts: Sequence[Path], source: Path, info: VideoInfo, size: tuple[int, int]
) -> tuple[str, ...]:
    """Write the frames of files of `encode_part`, and all else of `source`, to a video; returns what is left out.

    Args:
        path: the file; its suffix decides the format.
        parts: in order.
        source: whose sound, subtitles, chapters and metadata are copied.
        info: of the source.
        size: width and height of the frames, px.
    """
    import av

    left_out: list[str] = []
    with ExitStack() as stack:
        given = stack.enter_context(_open(source))
        made = stack.enter_context(av.open(str(path), "w"))
        main = _stream_of(source, given)
        video: Any = made.add_stream(_CODEC, rate=info.rate or 25)
        _configure(video.codec_context, info, size)
        video.time_base = info.time_base
        if info.aspect:
            video.sample_aspect_ratio = info.aspect
        if info.rotation:
            video.set_display_rotation(info.rotation)
        video.metadata.update(_described(main.metadata))
        copies = {}
        for stream in given.streams:
            if stream.index == main.index:
                continue
            name = _name_of(stream)
            if stream.type not in ("audio", "subtitle") or stream.codec_context.name not in _held(made):
                left_out.append(name)
                continue
            copies[stream.index] = made.add_stream_from_template(stream)
            copies[stream.index].metadata.update(_described(stream.metadata))
            copies[stream.index].disposition = stream.disposition
        made.metadata.update(_described(given.metadata))
        if chapters := given.chapters():
            made.set_chapters(chapters)
        streams = [stream for stream in given.streams if stream.index in copies]
        others = ((packet, copies[packet.stream.index]) for packet in given.demux(streams)) if streams else ()
        for packet, stream in heapq.merge(_packets(parts, info, video), others, key=_time_of):
            if packet.dts is not None:
                packet.stream = stream
                made.mux_one(packet)
    return tuple(left_out)


def _configure(context: Any, info: VideoInfo, size: tuple[int, int]) -> None:  # noqa: ANN401 - of a video encoder
    context.width, context.height = size
    context.pix_fmt, context.time_base = info.pixel_format, info.time_base
    context.framerate = info.rate or 25
    context.color_range, context.colorspace = _range_of(info), info.matrix
    context.color_primaries, context.color_trc = info.primaries, info.transfer
    context.flags |= 1 << 22  # AV_CODEC_FLAG_GLOBAL_HEADER: the same header for all parts
    if info.aspect:
        context.sample_aspect_ratio = info.aspect
    context.options = _SETTINGS


def _packets(parts: Sequence[Path], info: VideoInfo, stream: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
    """The packets of all parts; a frame lasts until the next."""
    waiting: Any = None
    for part in parts:
        with np.load(part) as content:
            times, durations, keys = (content[name].tolist() for name in ("times", "durations", "keys"))
            ends, data = content["sizes"].cumsum().tolist(), content["data"].tobytes()
        for time, duration, key, start, end in zip(times, durations, keys, [0, *ends], ends, strict=False):
            packet = _packet(data[start:end], time, duration, key, info)
            if waiting is not None:
                waiting.duration = time - waiting.pts
                yield waiting, stream
            waiting = packet
    if waiting is not None:
        yield waiting, stream


def _packet(data: bytes, time: int, duration: int, key: bool, info: VideoInfo) -> Any:  # noqa: ANN401
    import av

    packet = av.Packet(data)
    packet.time_base, packet.pts, packet.dts = info.time_base, time, time
    packet.duration, packet.is_keyframe = duration, key
    return packet


def _time_of(entry: tuple[Any, Any]) -> Fraction:
    packet = entry[0]
    return Fraction(-1) if packet.dts is None else packet.dts * packet.time_base


def _described(metadata: dict[str, str]) -> dict[str, str]:
    """Metadata without what describes the file that they come from."""
    return {key: value for key, value in metadata.items() if key.lower() not in _OF_THE_FILE}


_OF_THE_FILE = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration", "handler_name", "vendor_id"}


def _held(made: Any) -> set[str]:  # noqa: ANN401 - an output container
    held: set[str] = made.supported_codecs
    return held


def _name_of(stream: Any) -> str:  # noqa: ANN401 - a stream
    kind = {"audio": "sound", "subtitle": "subtitles", "video": "another picture"}.get(stream.type, stream.type)
    context = getattr(stream, "codec_context", None)
    return f"{kind} ({context.name})" if context else kind


def _count(file: Any, stream: Any) -> int | None:  # noqa: ANN401 - of a file that is open
    seconds = None if file.duration is None else Fraction(file.duration, 10**6)
    return round(seconds * stream.average_rate) if seconds and stream.average_rate else None


def _range_of(info: VideoInfo) -> int:
    return _FULL if info.full_range else _LIMITED


def _interpolation() -> Any:  # noqa: ANN401 - an enumeration of PyAV
    from av.video.reformatter import Interpolation as Flag

    return Flag.BICUBIC | Flag.ACCURATE_RND | Flag.FULL_CHR_H_INT | Flag.FULL_CHR_H_INP | Flag.BITEXACT


def _reformatter() -> Any:  # noqa: ANN401 - of PyAV
    """That of this thread: it keeps its tables from frame to frame."""
    from av.video.reformatter import VideoReformatter

    if not hasattr(_local, "reformatter"):
        _local.reformatter = VideoReformatter()
    return _local.reformatter


def _open(path: Path) -> av.container.InputContainer:
    import av

    return av.open(str(path), metadata_errors="replace")


def _stream_of(path: Path, file: Any) -> Any:  # noqa: ANN401 - a file and its stream
    attached = 1 << 10  # AV_DISPOSITION_ATTACHED_PIC: a cover
    streams = [stream for stream in file.streams.video if not int(stream.disposition) & attached]
    if not streams:
        raise InputError(f"{path}: holds no video; give a video or an image", code="video.no-pictures")
    return streams[0]


def _cannot_keep(path: Path, what: str, advice: str = "convert it first") -> InputError:
    message = f"{path}: has {what}, which the result would not keep; {advice}"
    return InputError(one_line(message), code="video.cannot-keep")


@contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Turn errors of PyAV into an InputError that begins with the name of the file: `video.damaged`."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise InputError(
            one_line(
                f"{path}: cannot be read or written as a video ({error.strerror}); get a fresh copy, or choose "
                "another format"
            ),
            code="video.damaged",
        ) from error
