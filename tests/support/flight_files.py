"""Flight records in the forms that drones and programs write, of a drone that flies north from a place."""

from collections.abc import Callable, Sequence

import numpy as np

from geodtr.runtime.geodesy import moved

PLACE = (-30.0, -15.0)
HEADING, HEIGHT = 200.0, 60.0
SECONDS, SPEED = 0.1, 8.0


def places(count: int, start: tuple[float, float] = PLACE) -> list[tuple[float, float]]:
    """Positions every SECONDS at SPEED."""
    lat, lon = moved(*start, np.zeros(count), SPEED * SECONDS * np.arange(count))
    return list(zip(lat.tolist(), lon.tolist(), strict=True))


def bracketed(row: int, lat: float, lon: float) -> str:
    """Since 2022: with a relative height, and of some drones the gimbal."""
    return (
        f'<font size="28">FrameCnt: {row + 1}, DiffTime: 100ms\n2026-05-27 13:10:{row // 10:02d}.{row % 10}00\n'
        f"[iso: 200] [focal_len: 24.00] [dzoom_ratio: 1.00], [latitude: {lat:.6f}] [longitude: {lon:.6f}] "
        f"[rel_alt: {HEIGHT:.3f} abs_alt: -124.744] [gb_yaw: {HEADING - 360:.1f} gb_pitch: -90.0 gb_roll: 0.0] </font>"
    )


def misspelled(row: int, lat: float, lon: float) -> str:
    """2018 to 2021: one altitude, above an unknown level."""
    return (
        f'<font size="36">SrtCnt : {row + 1}, DiffTime : 100ms\n2020-04-02 15:19:{row // 10:02d},{row % 10}00,764\n'
        f"[iso : 120] [focal_len : 240] [latitude : {lat:.6f}] [longtitude : {lon:.6f}] [altitude: 213.9] </font>"
    )


def longitude_first(row: int, lat: float, lon: float) -> str:
    """2015 to 2017: the third value counts satellites."""
    return (
        f"HOME({lon:.4f},{lat:.4f}) 2017.8.5 14:11:{row // 10:02d}\nGPS({lon:.6f},{lat:.6f},16) BAROMETER:{HEIGHT}\n"
        "ISO:100 Shutter:60 EV: Fnum:2.2"
    )


def latitude_first(row: int, lat: float, lon: float) -> str:
    """Of large drones: the third value is an altitude."""
    return f"2022.06.21 16:06:{row // 10:02d}\nGPS({lat:.6f},{lon:.6f},0.0M) BAROMETER:{HEIGHT}M"


def one_line(row: int, lat: float, lon: float) -> str:
    """Without brackets, with the angles of aircraft and gimbal."""
    del row
    return (
        f"F/5.6, SS 400, ISO 100, EV +0.7, GPS ({lon:.6f}, {lat:.6f}, 16), HOME (-15.0, -30.0, 7.60m), D 153.32m, "
        f"H {HEIGHT:.2f}m, H.S 1.84m/s, V.S n/a, F.PRY (-8.9°, 2.9°, -75.0°), G.PRY (-90.0°, 0.0°, {HEADING - 360}°)"
    )


Dialect = Callable[[int, float, float], str]
DIALECTS: tuple[Dialect, ...] = (bracketed, misspelled, longitude_first, latitude_first, one_line)


def srt(
    dialect: Dialect, count: int = 30, at: Sequence[tuple[float, float]] | None = None, seconds: float = SECONDS
) -> str:
    """A file of `count` entries, or of those `at` places, one every so many seconds."""
    entries = []
    for row, (lat, lon) in enumerate(at or places(count)):
        begin, end = (
            f"00:00:{int(time):02d},{round(time % 1 * 1000):03d}" for time in (row * seconds, (row + 1) * seconds)
        )
        entries.append(f"{row + 1}\n{begin} --> {end}\n{dialect(row, lat, lon)}\n\n")
    return "".join(entries)


def airdata(count: int = 30, films: range = range(5, 30)) -> str:
    """Feet, and times in milliseconds."""
    header = (
        "time(millisecond),datetime(utc),latitude,longitude,height_above_takeoff(feet),altitude_above_seaLevel(feet),"
        "speed(mph),compass_heading(degrees),isVideo,gimbal_heading(degrees),gimbal_pitch(degrees),gimbal_roll(degrees)"
    )
    rows = [
        f"{100 * row},2026-04-14 09:28:{row // 10:02d},{lat:.7f},{lon:.7f},{HEIGHT / 0.3048:.2f},900,17.9,199,"
        f"{int(row in films)},{HEADING},-90,0"
        for row, (lat, lon) in enumerate(places(count))
    ]
    return "\n".join([header, *rows]) + "\n"


def converted(count: int = 30, films: range = range(5, 30)) -> str:
    """DJI's logs as converters write them, with a line for spreadsheets, and the time of day."""
    header = (
        "CUSTOM.date [local],CUSTOM.updateTime [local],OSD.flyTime,OSD.latitude,OSD.longitude,OSD.height [ft],OSD.yaw,"
        "GIMBAL.pitch,GIMBAL.roll,GIMBAL.yaw,GIMBAL.yaw [360],CAMERA.isVideo"
    )
    rows = [
        f"11/25/2025,7:05:{row // 10:02d}.{row % 10}0 PM,0m {row / 10}s,{lat:.7f},{lon:.7f},{HEIGHT / 0.3048:.1f},-161,"
        f"-90,0,{HEADING - 360},{HEADING},{'Recording' if row in films else ''}"
        for row, (lat, lon) in enumerate(places(count))
    ]
    return "\n".join(["sep=,", header, *rows]) + "\n"


def litchi(count: int = 30, films: range = range(5, 30)) -> str:
    """Metres, spaces after commas, and raw angles in tenths of degrees."""
    header = (
        "latitude, longitude, altitude(m), speed(mps), velocityX(mps), yaw(deg), time(millisecond), gimbalPitchRaw, "
        "gimbalRollRaw, gimbalYawRaw, isVideo"
    )
    rows = [
        f"{lat:.7f},{lon:.7f},{HEIGHT},8,8,199,{100 * row},-900,0,{10 * (HEADING - 360):.0f},{int(row in films)}"
        for row, (lat, lon) in enumerate(places(count))
    ]
    return "\n".join([header, *rows]) + "\n"


TABLES = (airdata, converted, litchi)
