"""Names of a package that are imported when they are first used, so that importing it is quick."""

from collections.abc import Callable
from importlib import import_module


def lazy_names(
    package: str, module_of: dict[str, str], modules: tuple[str, ...] = ()
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: Its full name.
        module_of: For each name, the module below the package that defines it.
        modules: Names of modules below it that are public as they are.

    Returns:
        The three. An unknown name raises `AttributeError`.

    Examples:
        >>> find, _, names = lazy_names("json", {"JSONDecoder": "decoder"})
        >>> names, find("JSONDecoder").__name__
        (['JSONDecoder'], 'JSONDecoder')

    Source: PEP 562, module `__getattr__` and `__dir__`.
    """
    names = [*module_of, *modules]

    def find(name: str) -> object:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name in module_of:
            return getattr(import_module(f"{package}.{module_of[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find, lambda: sorted(names), names
