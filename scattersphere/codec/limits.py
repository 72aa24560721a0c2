"""The limits of a definition (design, section 8), each a named constant with its reason."""

from __future__ import annotations

FILE_BYTES = 64 * 1024 * 1024
"""The largest text that is read at all."""

TASKS = 200_000
"""Tasks of a job."""

EDGES = 1_000_000
"""Dependencies of a job, declared and implied."""

DEPTH = 64
"""Containers inside one another: far below any recursion limit, far above what people write."""

STRING_CHARACTERS = 16 * 1024 * 1024
"""Characters of one string; a larger value belongs in a file whose path is the argument."""

INTEGER_DIGITS = 640
"""Digits of an integer. Python promises to convert so many, whatever its own limit is set to
(`sys.int_info.str_digits_check_threshold`)."""

INSTANCES = 100_000
"""Instances of a mapped task."""
