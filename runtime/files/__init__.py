"""Files and folders: read with care, written whole or not at all; and documents, rows of text and SQLite in them."""

from geodtr.runtime.files.growing import GrowingFile
from geodtr.runtime.files.locks import Lock, lock_file, locked
from geodtr.runtime.files.places import check_apart, check_ending, check_new_file, check_new_folder, check_writable
from geodtr.runtime.files.reading import (
    check_file,
    check_regular,
    hash_files,
    open_regular,
    open_to_read,
    readable,
    real_path,
    sha256,
)
from geodtr.runtime.files.writing import (
    make_folder,
    new_file,
    new_folder,
    new_pair,
    scratch_in,
    signals_held,
    sync,
    write_bytes,
    write_link,
)
