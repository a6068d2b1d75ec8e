"""Ask a Triton server, over HTTP and over gRPC, from the environment that has its client; prints JSON.

    python triton_client.py HTTP_PORT GRPC_PORT BAD_FILE NEAR FILE...

NEAR is LAT,LON,RADIUS for one more question about the first file.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as by_grpc  # type: ignore[import-not-found, unused-ignore]
import tritonclient.http as by_http  # type: ignore[import-not-found, unused-ignore]

MODEL = "geodtr_localize"


def ask(module: Any, client: Any, contents: list[bytes], near: list[float] | None = None) -> dict[str, Any]:
    images = module.InferInput("IMAGE", [len(contents), 1], "BYTES")
    images.set_data_from_numpy(np.array(contents, object).reshape(-1, 1))
    inputs = [images]
    if near is not None:
        inputs.append(module.InferInput("NEAR", [1, 3], "FP64"))
        inputs[-1].set_data_from_numpy(np.array([near], np.float64))
    answer = client.infer(MODEL, inputs)
    return {
        "states": [json.loads(text)["state"] for text in answer.as_numpy("ANSWER")[:, 0]],
        "position": answer.as_numpy("POSITION").tolist(),
        "within": answer.as_numpy("WITHIN").tolist(),
        "tile": [[name.decode() for name in row] for row in answer.as_numpy("TILE")],
        "score": answer.as_numpy("SCORE").tolist(),
    }


def main() -> None:
    http, grpc, bad, near, *files = sys.argv[1:]
    contents = [Path(file).read_bytes() for file in files]
    results = dict[str, dict[str, Any]]()
    for module, address in ((by_http, f"127.0.0.1:{http}"), (by_grpc, f"127.0.0.1:{grpc}")):
        client = module.InferenceServerClient(address)
        until = time.monotonic() + 60
        while True:
            try:
                if client.is_model_ready(MODEL):
                    break
            except Exception as error:
                sys.stderr.write(f"{error}\n")
            if time.monotonic() > until:
                sys.exit("the model did not become ready")
            time.sleep(0.5)
        results[module.__name__.rpartition(".")[2]] = {
            "all": ask(module, client, contents),
            "near": ask(module, client, contents[:1], [float(part) for part in near.split(",")]),
        }
        try:
            ask(module, client, [Path(bad).read_bytes()])
        except Exception as error:
            results[module.__name__.rpartition(".")[2]]["error"] = str(error)
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main()
