"""Where a study is kept: a database, and what can be wrong with it in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from lm.errors import ConfigError, StorageError
from lm.runtime.untrusted import first_line


def check_storage(url: str) -> None:
    """Find out before any work whether there is such a database.

    Raises:
        ConfigError: the URL is none, or its driver is not installed.
        StorageError: the database cannot be opened.
    """
    import optuna

    with opening():
        optuna.storages.get_storage(url)


@contextmanager
def storage_trouble() -> Iterator[None]:
    """Say in one line what a database cannot do.

    Raises:
        StorageError: it does not answer, or refuses.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except (ArgumentError, NoSuchModuleError):  # of the URL
        raise
    except (StorageInternalError, SQLAlchemyError) as error:
        inner = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = str(getattr(inner, "orig", None) or inner)
        raise StorageError(
            f"the sweep's database fails: {first_line(Exception(reason))}",
            "When it answers again, the same command goes on.",
        ) from error


@contextmanager
def opening() -> Iterator[None]:
    """The same for what can be wrong with an URL, and no password of it.

    Raises:
        ConfigError: it is none, or its driver is not installed.
    """
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    example = "Set storage=postgresql://USER@HOST/DATABASE, or leave it out for a file here."
    try:
        with storage_trouble():
            yield
    except ImportError as error:
        driver = getattr(error.__cause__ or error, "name", None)
        raise ConfigError(
            f"storage: the driver of this database, {driver}, is not installed",
            f"pip install {driver}",
        ) from error
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise ConfigError("storage is not the URL of a database", example) from error
