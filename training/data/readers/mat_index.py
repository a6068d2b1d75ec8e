"""A program that prints CVACT's index of one split as JSON. Arguments: file, struct and its field.

It runs in its own process because SciPy's reader of MATLAB files may crash on a damaged file.
"""

import sys

import msgspec


def main() -> None:
    """Print the index; see the module."""
    import numpy as np
    from scipy.io import loadmat

    path, struct, field = sys.argv[1:]
    index = loadmat(path, variable_names=("panoIds", "utm", struct), squeeze_me=True)
    content = {
        "names": np.atleast_1d(index["panoIds"]).tolist(),
        "utm": np.atleast_2d(index["utm"]).tolist(),
        "rows": np.atleast_1d(index[struct][field].item()).tolist(),
    }
    sys.stdout.buffer.write(msgspec.json.encode(content))


if __name__ == "__main__":
    main()
