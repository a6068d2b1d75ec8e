"""Run as a program: prints, as JSON, what CVACT's index says of one split. Arguments: file, struct and its field.

A process of its own, because SciPy's reader of MATLAB files does not only raise whatever it stumbles on in a damaged
file: it may crash, and would take the caller along.
"""

import sys

import msgspec


def main() -> None:
    import numpy as np
    from scipy.io import loadmat

    path, struct, field = sys.argv[1:]
    index = loadmat(path, variable_names=("panoIds", "utm", struct), squeeze_me=True)
    found = {
        "names": np.atleast_1d(index["panoIds"]).tolist(),
        "utm": np.atleast_2d(index["utm"]).tolist(),
        "rows": np.atleast_1d(index[struct][field].item()).tolist(),
    }
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
