"""A pytest plugin for the array API's own suite (data-apis/array-api-tests), run in its folder.

The suite is not on a package registry and no part of this repository. In a clone of it, with
Cartograd installed and this file's folder on PYTHONPATH:

    ARRAY_API_TESTS_MODULE=cartograd ARRAY_API_TESTS_VERSION=2025.12 \
    ARRAY_API_TESTS_SKIP_DTYPES=complex64,complex128 \
    pytest array_api_tests -p array_api_suite --disable-extension fft

(`widest_complex_dtype` in its dtype_helpers.py needs `default=(None,)` where there are no complex
dtypes.) What is expected to fail is below, with the reason: pattern of the test's id, why.
"""

from fnmatch import fnmatchcase

import pytest

COMPLEX = "complex dtypes are not supported yet"
PYTHON = "as in Python and NumPy, which the standard allows: x == (x // y) * y + x % y"
IMMUTABLE = "Tensors never change: x[i] = v names x.at[i].set(v)"
EMPTY = "a mean of nothing is an error that says so, never a NaN"

EXPECTED = {
    "*test_special_cases.py::*imag(x_i)*": COMPLEX,
    "*test_linalg.py::test_eig": COMPLEX,
    "*test_linalg.py::test_eigvals": COMPLEX,
    "*test_linalg.py::test_vecdot_conj": COMPLEX,
    "*::test_has_names[[]linalg-eig[]]": COMPLEX,
    "*::test_has_names[[]linalg-eigvals[]]": COMPLEX,
    "*::test_has_names[[]fft-*": COMPLEX,
    "*::test_extension_func_signature[[]linalg.eig[]]": COMPLEX,
    "*::test_extension_func_signature[[]linalg.eigvals[]]": COMPLEX,
    "*test_special_cases.py::*floor*div*x1_i is ?infinity and isfinite(x2_i)*": PYTHON,
    "*test_special_cases.py::*floor*div*isfinite(x1_i)*x2_i is ?infinity) -> -0*": PYTHON,
    "*test_array_object.py::test_setitem": IMMUTABLE,
    "*test_array_object.py::test_setitem_masking": IMMUTABLE,
    "*test_creation_functions.py::test_asarray_arrays": IMMUTABLE,
    "*test_dlpack.py::test_dunder_dlpack": "without a copy, the old protocol would allow a change",
    "*::test_empty_arrays[[]mean[]]": EMPTY,
    "*::test_empty_arrays[[]std[]]": EMPTY,
    "*::test_empty_arrays[[]var[]]": EMPTY,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is expected to fail."""
    for item in items:
        for pattern, reason in EXPECTED.items():
            if fnmatchcase(item.nodeid, pattern):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=False))
