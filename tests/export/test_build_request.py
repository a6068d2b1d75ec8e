"""A build request and its command line are equivalent, and options that exclude each other are refused."""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import MISSING
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
import typer.main
from hypothesis import given, settings
from hypothesis import strategies as st

from geodtr import (
    Auto,
    BuildRequest,
    Calibration,
    Compact,
    FastestBackend,
    Float,
    OnnxRuntimeOptions,
    Quantized,
    Recompile,
    TensorRtOptions,
    TensorRtRtxOptions,
    build_engine,
)
from geodtr.cli.build import build_engine as command
from geodtr.cli.main import app
from geodtr.export.backends.options import BACKEND_OPTIONS
from geodtr.export.build.command_line import command_line
from geodtr.export.build.precisions import Plan
from geodtr.export.options import options_of
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import PrecisionAsked

CALIBRATION = Calibration("pairs:w")
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
paths = words.map(Path).filter(lambda path: str(path) != ".")


def values(name: str, kind: Any, low: float | None, high: float | None) -> st.SearchStrategy[Any]:
    """Any value that an option takes, but for None: an option that is not given."""
    if name == "compute_capabilities":
        return st.lists(words, max_size=3).map(tuple)
    if name in ("data", "recall_on", "compact_on"):
        return words
    of = {bool: st.booleans(), int: st.integers(int(low or 0), int(high or 2**31)), Path: paths}
    of[float] = st.floats(low, high)
    strategies = [of[each] if each in of else st.sampled_from(get_args(each)) for each in kinds(kind)]
    return st.one_of(strategies)


def kinds(kind: Any) -> list[Any]:
    """`int` of `int | None`."""
    return [kind] if get_origin(kind) in (None, Literal) else [each for each in get_args(kind) if each is not NoneType]


@st.composite
def instances(draw: st.DrawFn, /, of: Any, **fixed: Any) -> Any:
    """An instance of a dataclass with some of its options; without options if those exclude each other."""
    needed = {each.name: draw(values(each.name, each.type, how.minimum, how.maximum)) for each, how in missing(of)}
    options = {
        each.name: draw(values(each.name, each.type, how.minimum, how.maximum))
        for each, how in options_of(of)
        if each.name not in needed and draw(st.booleans())
    }
    try:
        return of(**fixed, **needed, **options)
    except ConfigError:
        return of(**fixed, **needed)


def missing(of: Any) -> Iterator[tuple[Any, Any]]:
    return (each for each in options_of(of) if each[0].default is MISSING)


@st.composite
def requests(draw: st.DrawFn) -> BuildRequest:
    calibrations = instances(Calibration)
    plans: list[st.SearchStrategy[Plan]] = [
        st.sampled_from([Float("fp32"), Float("fp16")]),
        instances(Quantized, calibration=draw(calibrations), precision=draw(st.sampled_from(["int8", "fp8"]))),
        instances(Auto, calibration=draw(calibrations)),
        instances(Recompile),
    ]
    backend = draw(st.one_of([instances(of) for of in (*BACKEND_OPTIONS.values(), FastestBackend)]))
    plan = draw(st.one_of(plans))
    if isinstance(backend, FastestBackend) and isinstance(plan, Auto):
        plan = Float()
    source, out = draw(paths), draw(paths)
    fixed: dict[str, Any] = {"source": source, "out": out, "backend": backend, "plan": plan}
    if not isinstance(plan, Recompile):
        fixed["compact"] = draw(st.one_of(st.none(), instances(Compact)))
    request: BuildRequest = draw(instances(BuildRequest, **fixed))
    return request


def parsed(line: str, monkeypatch: pytest.MonkeyPatch) -> BuildRequest:
    """The request that the command line's own parser builds from a line."""
    captured = list[BuildRequest]()

    def build(request: BuildRequest, **_more: object) -> None:
        captured.append(request)
        raise typer.Exit

    with monkeypatch.context() as patched:
        patched.setattr("geodtr.export.build.engine.build_engine", build)
        patched.setattr("geodtr.export.model.check_source", lambda _source: None)  # it reads the file
        program, *arguments = shlex.split(line)
        assert program == "geodtr-export"
        assert typer.main.get_command(app)(arguments, standalone_mode=False) in (0, None)
    (request,) = captured
    return request


@settings(deadline=None)
@given(request_=requests())
def test_a_request_equals_the_one_from_its_command_line(request_: BuildRequest) -> None:
    assert parsed(command_line(request_), pytest.MonkeyPatch()) == request_


def test_a_command_line_holds_non_default_options_and_the_given_paths() -> None:
    plain = BuildRequest(Path("../run one"), Path("bundle"))
    assert command_line(plain) == (
        "geodtr-export build-engine '../run one' --backend onnxruntime --precision fp32 --out bundle"
    )
    plan = Auto(Calibration("cvusa:x#train", seed=3), "cvact:y#val", tolerance=0.25)
    request = BuildRequest(Path("c.safetensors"), Path("b"), OnnxRuntimeOptions(provider="cuda"), plan)
    assert command_line(request) == (
        "geodtr-export build-engine c.safetensors --backend onnxruntime --provider cuda --precision auto "
        "--calibration 'cvusa:x#train' --seed 3 --recall-on 'cvact:y#val' --tolerance 0.25 --out b"
    )


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Calibration("SPEC", images=0), "images is 0; allowed: at least 1"),
        (lambda: Calibration("SPEC", percentile=101), "percentile is 101; allowed: 50 to 100"),
        (lambda: Quantized(Calibration("SPEC"), keep_cosine=float("nan")), "keep_cosine is nan"),
        (lambda: Quantized(Calibration("SPEC"), "fp8", dialect="cpu-7bit"), "dialect is not for fp8"),
        (lambda: TensorRtOptions(min_batch=4, max_batch=2), "min_batch 4, opt_batch 4 and max_batch 2 must rise"),
        (
            lambda: TensorRtOptions(version_compatible=True, strip=True),
            "version_compatible excludes strip and refittable",
        ),
        (lambda: TensorRtRtxOptions(refit_from=Path("x"), strip=True), "leave the other options"),
        (lambda: BuildRequest(Path("c"), Path("b"), require_faster=True), "require_faster is not for fp32"),
        (
            lambda: BuildRequest(Path("c"), Path("b"), plan=Recompile(), require_faster=True),
            "require_faster is not for the precision same",
        ),
        (
            lambda: BuildRequest(Path("c"), Path("b"), speed_batch=2),
            "speed_batch is given, and nothing is timed.*add require_faster",
        ),
        (lambda: Compact(0, "SPEC"), "descriptor_size is 0; allowed: at least 1"),
        (
            lambda: BuildRequest(Path("c"), Path("b"), plan=Recompile(), compact=Compact(8, "SPEC")),
            "descriptor_size is not for the precision same",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_when_the_request_is_made(make: Callable[[], object], named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace("(", r"\(")):
        make()


def test_each_option_is_declared_once_and_grouped_by_topic() -> None:
    group: Any = typer.main.get_command(app)
    options = [each for each in group.commands["build-engine"].params if each.param_type_name == "option"]
    flags = [flag for each in options for flag in each.opts]
    assert len(flags) == len(set(flags))
    panels = {each.rich_help_panel for each in options}
    assert {"ONNX Runtime", "TensorRT, TensorRT-RTX", "Speed"} < panels
    assert command.build_engine.__doc__ is not None
    assert {"fp32", "fp16", "int8", "fp8", "auto", "same"} == set(get_args(PrecisionAsked))


@pytest.mark.parametrize(
    ("of", "given", "message"),
    [
        (Float, {"precision": "int8"}, r"precision is 'int8'; allowed: fp32, fp16\."),
        (Float, {"precision": "banana"}, "precision is 'banana'; allowed: fp32, fp16"),
        (Quantized, {"precision": "fp16"}, r"precision is 'fp16'; allowed: int8, fp8\."),
        (Quantized, {"dialect": "x86"}, "dialect is 'x86'; allowed: cpu-7bit, cpu-8bit, tensorrt or None"),
        (Quantized, {"keep_cosine": "0.9"}, "keep_cosine is '0.9'; allowed: a number"),
        (Quantized, {"calibration": "pairs:w"}, "calibration is 'pairs:w'; allowed: Calibration"),
        (Calibration, {"images": 2.5}, "images is 2.5; allowed: a whole number"),
        (Calibration, {"select": "best"}, "select is 'best'; allowed: first, random"),
        (Calibration, {"method": "mean"}, "method is 'mean'; allowed: minmax"),
        (Auto, {"accept_undecided": "no"}, "accept_undecided is 'no'; allowed: True or False"),
        (Auto, {"calibration": "pairs:w"}, "calibration is 'pairs:w'; allowed: Calibration"),
        (Recompile, {"dialect": "x86"}, "dialect is 'x86'; allowed: cpu-7bit"),
        (OnnxRuntimeOptions, {"provider": "gpu"}, "provider is 'gpu'; allowed: cpu, cuda, tensorrt"),
        (TensorRtOptions, {"hardware": "any"}, "hardware is 'any'; allowed: same-gpu"),
        (TensorRtRtxOptions, {"compute_capabilities": "89"}, "compute_capabilities is '89'; allowed: "),
        (BuildRequest, {"plan": "int8"}, "plan is 'int8'; allowed: Float or Quantized"),
        (BuildRequest, {"backend": "onnxruntime"}, "backend is 'onnxruntime'; allowed: OnnxRuntimeOptions or"),
        (BuildRequest, {"compact": 512}, "compact is 512; allowed: Compact or None"),
        (BuildRequest, {"source": None}, "source is None; allowed: a path"),
        (build_engine, {"request": "m"}, "request is 'm'; allowed: BuildRequest"),
    ],
)
def test_what_a_request_does_not_declare_is_refused_when_it_is_made(
    of: Callable[..., object], given: dict[str, Any], message: str
) -> None:
    needed: dict[Any, dict[str, Any]] = {
        Calibration: {"data": "pairs:w"},
        Quantized: {"calibration": CALIBRATION},
        Auto: {"calibration": CALIBRATION, "recall_on": "pairs:w"},
        BuildRequest: {"source": "m", "out": "b"},
    }
    with pytest.raises(ConfigError, match=message):
        of(**{**needed.get(of, {}), **given})


def test_text_is_a_path_as_well() -> None:
    text: Any = "r.json"
    request = BuildRequest(text, text)
    assert (request.source, request.out) == (Path("r.json"), Path("r.json"))
    assert Calibration("pairs:w", ranges=text).ranges == Path("r.json")
