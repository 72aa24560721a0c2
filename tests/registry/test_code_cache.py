"""Compiled code is shared by content, and lives while somebody uses it."""

from __future__ import annotations

from scattersphere.registry.modules.code_cache import CodeCache

SOURCE = "def outer():\n    def inner(): return 1\n    return inner\n"


def test_code_from_the_cache_names_the_file_of_its_user():
    cache = CodeCache()
    cache.put(b"d", compile(SOURCE, "old.py", "exec"), "v1")
    code = cache.get(b"d", "new.py", "v2")
    names = {}
    exec(code, names)
    assert code.co_filename == names["outer"].__code__.co_filename == "new.py"
    assert names["outer"]().__code__.co_filename == "new.py"
    assert names["outer"]()() == 1
    assert (cache.hits, cache.misses) == (1, 0)


def test_an_entry_goes_with_its_last_user():
    cache = CodeCache()
    assert cache.get(b"d", "x.py", "v1") is None
    cache.put(b"d", compile(SOURCE, "x.py", "exec"), "v1")
    cache.get(b"d", "x.py", "v2")
    cache.drop("v1")
    assert len(cache) == 1
    cache.drop("v2")
    cache.drop("v2")
    assert len(cache) == 0


def test_what_one_version_gets_is_not_what_another_gets():
    cache = CodeCache()
    kept = compile(SOURCE, "old.py", "exec")
    cache.put(b"d", kept, "v1")
    first, second = cache.get(b"d", "1.py", "v1"), cache.get(b"d", "2.py", "v2")
    assert [code.co_filename for code in (kept, first, second)] == ["old.py", "1.py", "2.py"]
