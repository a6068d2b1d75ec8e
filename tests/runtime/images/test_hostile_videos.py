"""A video is a local file: nothing that it names is fetched."""

from pathlib import Path

import pytest
from listening import listening

from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.video import read_video, retrieved

_PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9.0,\n{}/a.ts\n#EXT-X-ENDLIST\n",
    "hls of lists": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}/a.m3u8\n",
    "concat": "ffconcat version 1.0\nfile '{}/a.mp4'\n",
    "rtsp": "RTSPtext\n{}\n",
}


@pytest.mark.parametrize("name", _PLAYLISTS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_playlist_called_a_video_fetches_nothing(tmp_path: Path, name: str, suffix: str) -> None:
    with listening() as listener:
        path = tmp_path / f"a{suffix}"
        path.write_text(_PLAYLISTS[name].format(listener.address))
        (seen,) = read_video(path)
        assert isinstance(seen.image, ImageError)
        assert listener.requests == []


def test_a_path_that_reads_like_an_address_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg takes `http:/127.0.0.1/a.mp4` for an address, which is a path as well."""
    monkeypatch.chdir(tmp_path)
    with listening() as listener:
        path = Path(listener.address.replace("//", "/")) / "a.mp4"
        path.parent.mkdir(parents=True)
        path.write_text("no video")
        (seen,) = read_video(path)
        assert isinstance(seen.image, ImageError)
        assert listener.requests == []


def test_a_frame_of_no_pixels_is_one_that_cannot_be_decoded() -> None:
    """As OpenCV gives for a damaged AVI."""

    class Capture:
        def retrieve(self) -> tuple[bool, None]:
            return True, None

    assert isinstance(retrieved(Capture(), "a.avi#3", 0.3).image, ImageError)  # type: ignore[arg-type]
