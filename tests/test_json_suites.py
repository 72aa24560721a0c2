"""The public suite of JSON parsers' odd inputs, each as it is and inside a definition, and thousands made from it."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path

import pytest

from scattersphere import JobDefinition
from scattersphere._json import JsonTextError, loads
from scattersphere.errors import DefinitionError

CASES = {
    name: case["text"].encode() if "text" in case else base64.b64decode(case["base64"])
    for name, case in json.loads(
        (Path(__file__).parent / "data" / "jsontestsuite" / "cases.json").read_text(encoding="ascii")
    ).items()
} | {
    "n_structure_100000_opening_arrays": b"[" * 100_000,
    "n_structure_open_array_object": b'[{"":' * 50_000,
}
DUPLICATES = {name for name in CASES if "duplicated_key" in name or "same_key" in name}
"""The suite accepts these; a person who writes a key twice has made a mistake (design, section 4)."""
ACCEPTED = {
    # What a parser may accept or refuse, and this one accepts. All others it refuses: numbers that no float can
    # hold, halves of surrogate pairs, what is no UTF-8, more than 64 levels.
    "i_number_double_huge_neg_exp",
    "i_number_real_underflow",
    "i_number_too_big_neg_int",
    "i_number_too_big_pos_int",
    "i_number_very_big_negative_int",
    "i_structure_UTF-8_BOM_empty_object",
    "number_-9223372036854775808",
    "number_-9223372036854775809",
    "number_1.0",
    "number_1.000000000000000005",
    "number_1000000000000000",
    "number_10000000000000000999",
    "number_1e-999",
    "number_1e6",
    "number_9223372036854775807",
    "number_9223372036854775808",
    "object_key_nfc_nfd",
    "object_key_nfd_nfc",
    "string_with_escaped_NULL",
}


def accepted(name):
    return name in ACCEPTED or (name.startswith("y_") and name not in DUPLICATES)


def assert_clean(error):
    """A refusal is a place and plain words, never a message of the stdlib."""
    told = (
        [(problem, problem.line, problem.column) for problem in error.problems]
        if isinstance(error, DefinitionError)
        else error.located()
    )
    assert told
    for problem, line, column in told:
        assert line >= 1
        assert column >= 1
        assert not any(
            words in problem.message for words in ("Expecting", "Extra data", "codec can't", "char 0")
        )
    assert len(str(error)) <= 20_000


@pytest.mark.parametrize("name", sorted(CASES))
def test_each_case_of_the_suite_is_accepted_or_refused_as_decided(name):
    if accepted(name):
        text = CASES[name].decode("utf-8-sig")
        assert loads(CASES[name]) == json.loads(text)
        return
    with pytest.raises(JsonTextError) as caught:
        loads(CASES[name])
    assert_clean(caught.value)


def test_the_suite_is_whole():
    kinds = [name[:2] for name in CASES]
    assert [kinds.count(kind) for kind in ("y_", "n_", "i_")] == [95, 188, 35]


@pytest.mark.parametrize("name", sorted(name for name in CASES if len(CASES[name]) < 2_000))
def test_each_case_means_the_same_as_an_argument_in_a_definition(name):
    case = CASES[name].removeprefix(b"\xef\xbb\xbf")
    text = b'{"name": "x", "tasks": {"t": {"task": "a.B", "args": {"k": {"$literal": ' + case + b"}}}}}"
    if accepted(name):
        job = JobDefinition.loads(text)
        assert job.tasks["t"].args["k"]["$literal"] == json.loads(case)
        assert JobDefinition.loads(job.dumps()) == job
        return
    try:
        job = JobDefinition.loads(text)
    except DefinitionError as error:
        assert_clean(error)
    else:
        # Some refused texts are right where more text follows, such as `1]`; none is anything else than JSON then.
        assert json.loads(text) is not None


def pairs(found):
    if len(dict(found)) != len(found):
        raise ValueError
    return dict(found)


def constant(_):
    raise ValueError


def real(digits):
    if math.isinf(float(digits)):
        raise ValueError
    return float(digits)


def check_strings(value):
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        check_strings([*value, *value.values()])
    elif isinstance(value, list):
        for inner in value:
            check_strings(inner)


def oracle(data):
    """Read as RFC 8259 and our limits say, with the stdlib, slowly and plainly. Raises ValueError."""
    text = data.decode("utf-8").removeprefix("\ufeff")
    value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_float=real)
    check_strings(value)
    return value


def mutants(case):
    """Cut a text at each place, leave out each byte, double it, and put odd bytes in its stead."""
    for at in range(len(case)):
        yield case[:at]
        yield case[:at] + case[at + 1 :]
        yield case[: at + 1] + case[at:]
        for odd in b'",:[]{}\\0-.eEuN/ \n\x00\xff':
            yield case[:at] + bytes([odd]) + case[at + 1 :]


def test_thousands_of_damaged_texts_are_judged_as_by_a_plain_reading():
    texts = {mutant for case in CASES.values() if len(case) <= 24 for mutant in mutants(case)}
    assert len(texts) > 20_000
    for text in texts:
        try:
            expected = oracle(text)
        except ValueError:
            with pytest.raises(JsonTextError) as caught:
                loads(text)
            assert caught.value.located(), text
        else:
            assert loads(text) == expected, text
