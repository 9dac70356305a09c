"""Run the commands of the documentation, page by page, in a fresh environment.

python scripts/run_documentation.py                                 all of it
python scripts/run_documentation.py --page docs/howto/resume.md     one page
python scripts/run_documentation.py --environment .venv             without installing anew

Fails at the first command that does not do what its page says. What is run is the last commit; with
--environment it is the checkout as it is.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from documentation.blocks import Block, PageError, blocks_of
from documentation.environment import ROOT, InstallationError, existing, fresh
from documentation.running import BlockError, pages, run_page

_SHOWN = 90


def main(arguments: Sequence[str] | None = None) -> int:
    """Run or list; the exit code is 1 where a page does not hold."""
    options = _parser().parse_args(arguments)
    chosen = options.page or pages()
    try:
        if options.list:
            _list(chosen)
        else:
            _run(chosen, options)
    except (PageError, BlockError, InstallationError) as error:
        print(f"run_documentation: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--page", type=_page, action="append", help="one page; may be repeated")
    parser.add_argument("--list", action="store_true", help="show the blocks, run nothing")
    parser.add_argument("--keep", action="store_true", help="keep the folder that all happens in")
    parser.add_argument(
        "--environment", type=_programs, help="a virtual environment, used as it is"
    )
    return parser


def _page(given: str) -> Path:
    page = Path(given).resolve()
    if not page.is_file() or not page.is_relative_to(ROOT):
        raise argparse.ArgumentTypeError(f"no page of this checkout: {given}")
    return page.relative_to(ROOT)


def _programs(given: str) -> Path:
    """The folder with an environment's programs."""
    programs = Path(given).absolute() / "bin"
    if not (programs / "lm").exists():
        raise argparse.ArgumentTypeError(f"lm is not installed in {given}")
    return programs


def _list(chosen: Sequence[Path]) -> None:
    for page in chosen:
        for block in blocks_of(ROOT / page, page):
            kept = "" if block.file is None else f" → {block.file}"
            what = "run" if block.runs else f"skip ({block.skip})" if block.skip else "shown"
            print(f"{block.place:32} {block.language}{kept}: {what}: {_first_line(block)}")


def _run(chosen: Sequence[Path], options: argparse.Namespace) -> None:
    begun = time.perf_counter()
    for page in chosen:
        blocks_of(ROOT / page, page)  # what cannot be read is said before minutes of installing
    with _workplace(keep=options.keep) as folder:
        if options.environment is None:
            environment = fresh(folder)
            print(f"{time.perf_counter() - begun:6.1f} s  cloned and installed", flush=True)
        else:
            environment = existing(options.environment, folder)
        for page in chosen:
            for done in run_page(page, folder / page.with_suffix(""), environment):
                skipped = f"skipped ({done.block.skip}): " if done.block.skip else ""
                line = f"{done.block.place}  {skipped}{_first_line(done.block)}"
                print(f"{done.seconds:6.1f} s  {line}", flush=True)
    print(f"{time.perf_counter() - begun:6.1f} s  in all")


@contextlib.contextmanager
def _workplace(*, keep: bool) -> Iterator[Path]:
    if keep:
        folder = Path(tempfile.mkdtemp(prefix="lm-documentation-"))
        print(f"everything is in {folder}", flush=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="lm-documentation-") as temporary:
        yield Path(temporary)


def _first_line(block: Block) -> str:
    lines = block.text.strip().splitlines()
    more = " …" if len(lines) > 1 else ""
    return f"{lines[0][:_SHOWN] if lines else ''}{more}"


if __name__ == "__main__":
    sys.exit(main())
