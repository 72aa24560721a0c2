"""Which modules a list of files makes."""

from __future__ import annotations

from scattersphere.registry.snapshots.layout import lay_out


def test_packages_modules_and_folders_without_init_are_modules():
    layout = lay_out(
        ["etl/__init__.py", "etl/a.py", "ns/deep/b.py", "top.py", "etl/data.json", "no-module.py"]
    )
    assert set(layout.modules) == {"etl", "etl.a", "ns", "ns.deep", "ns.deep.b", "top"}
    assert layout.modules["ns"].file == ""
    assert list(layout.scanned()) == ["etl", "etl.a", "ns.deep.b", "top"]


def test_a_package_beats_a_module_and_a_module_beats_a_plain_folder():
    assert lay_out(["etl.py", "etl/__init__.py", "etl/a.py"]).modules["etl"].file == "etl/__init__.py"
    layout = lay_out(["etl.py", "etl/a.py"])
    assert layout.modules["etl"].file == "etl.py"
    assert set(layout.modules) == {"etl"}


def test_tests_setup_and_main_are_not_searched_for_tasks():
    files = ["etl/__init__.py", "etl/__main__.py", "etl/tests/a.py", "tests/b.py", "setup.py", "conftest.py"]
    layout = lay_out([*files, "etl/test_x.py", "etl/latest.py", "etl/old/x.py"])
    assert list(layout.scanned(["etl.old"])) == ["etl", "etl.latest"]


def test_the_standard_library_and_this_library_and_shared_names_come_from_the_host():
    layout = lay_out(["email.py", "scattersphere/__init__.py", "numpy/__init__.py", "etl.py"])
    assert layout.own - {"numpy"} == {"etl"}
    assert layout.own == {"etl", "numpy"}
    assert layout.shadowed == {"email", "scattersphere"}


def test_a_top_level_name_with_a_c_extension_is_not_the_bundles_own():
    layout = lay_out(
        ["fast/__init__.py", "fast/_c.cpython-311-x86_64-linux-gnu.so", "etl.py", "lone.abi3.so"]
    )
    assert layout.compiled == {
        "fast": "fast/_c.cpython-311-x86_64-linux-gnu.so",
        "lone": "lone.abi3.so",
    }
    assert layout.own == {"etl"}
    assert list(layout.scanned()) == ["etl"]


def test_vendored_distributions_are_never_searched():
    records = {
        "my_etl-1.0.dist-info": "etl/__init__.py,sha256=x,1\n",
        "click-8.1.dist-info": "click/__init__.py,,\nclick-8.1.dist-info/RECORD,,\n",
        "six-1.dist-info": "six.py,,\n",
    }
    files = ["etl/__init__.py", "click/__init__.py", "six.py"]
    layout = lay_out(files, records, bundle="my-etl")
    assert layout.dependencies == {"click", "six"}
    assert list(layout.scanned()) == ["etl"]
    assert layout.own == {"etl", "click", "six"}


def test_the_only_distribution_is_the_bundle_itself():
    layout = lay_out(["etl/__init__.py"], {"x-1.dist-info": "etl/__init__.py,,"}, bundle="other")
    assert layout.dependencies == frozenset()


def test_the_only_distribution_beside_own_modules_is_a_dependency():
    files = ["job.py", "click/__init__.py", "click/_winconsole.py"]
    layout = lay_out(files, {"click-8.dist-info": "click/__init__.py,,\nclick/_winconsole.py,,"}, bundle="b")
    assert layout.dependencies == {"click"}
    assert list(layout.scanned()) == ["job"]


def test_a_package_that_several_distributions_share_comes_from_the_host_only_where_it_has_c_code():
    layout = lay_out(
        [
            "acme/jobs.py",
            "acme/fast.cpython-311-x86_64-linux-gnu.so",
            "acme/deep/__init__.py",
            "acme/deep/c/x.so",
        ]
    )
    assert set(layout.compiled) == {"acme.fast", "acme.deep"}
    assert layout.own == {"acme"}
    assert list(layout.scanned()) == ["acme.jobs"]
    assert lay_out(["acme/__init__.py", "acme/jobs.py", "acme/fast.so"]).compiled == {"acme": "acme/fast.so"}
    assert lay_out(["acme/fast.so"]).compiled == {"acme": "acme/fast.so"}
