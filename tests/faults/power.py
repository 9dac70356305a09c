"""What a disk may hold after the power went: the changes of a process, as far as they were synced.

Files and folders are told apart by their inodes. A file's content is durable once it was synced;
a folder's entries are, once the folder was. What was not synced may be there or not, so three disks
are tried after each change: one that kept everything, one that kept what was synced and nothing
else, and one that kept all entries but of the files only what was synced, as a journal of metadata
does (the zero-length files of ext4).
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

Entries = dict[str, int]
State = tuple[str, int, dict[str, bytes | None]]


@dataclass
class Disk:
    """A folder's tree now, and as far as it is durable."""

    root: Path
    folders: dict[int, Entries] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    synced_folders: dict[int, Entries] = field(default_factory=dict)
    synced_contents: dict[int, bytes] = field(default_factory=dict)
    handles: dict[int, int] = field(default_factory=dict)

    def hold(self, path: Path) -> int:
        """The inode, kept open so that no later file can get its number."""
        inode = path.stat().st_ino
        if inode not in self.handles:
            self.handles[inode] = os.open(path, os.O_RDONLY)
        return inode

    def close(self) -> None:
        """Let go of all inodes."""
        for handle in self.handles.values():
            os.close(handle)

    def look(self) -> None:
        """Take note of the tree as it is."""
        self.folders.clear()
        for place, folders, names in os.walk(self.root):
            path = Path(place)
            self.folders[self.hold(path)] = {
                name: self.hold(path / name) for name in (*folders, *names)
            }
            for name in names:
                self.contents[self.hold(path / name)] = (path / name).read_bytes()

    def sync(self, path: Path) -> None:
        """Take note that a file or folder is durable as it is."""
        inode = self.hold(path)
        if path.is_dir():
            self.synced_folders[inode] = {p.name: self.hold(p) for p in path.iterdir()}
        else:
            self.synced_contents[inode] = path.read_bytes()

    def after(self, *, entries: bool, contents: bool) -> dict[str, bytes | None]:
        """Content by path, None for a folder.

        Args:
            entries, contents: whether those that were not synced are there.
        """
        found: dict[str, bytes | None] = {}
        known = {*self.folders, *self.synced_folders}

        def walk(inode: int, prefix: str) -> None:
            listed = self.folders if entries and inode in self.folders else self.synced_folders
            for name, child in listed.get(inode, {}).items():
                path = f"{prefix}{name}"
                if child in known:
                    found[path] = None
                    walk(child, f"{path}/")
                else:
                    durable = self.synced_contents.get(child, b"")
                    found[path] = self.contents.get(child, durable) if contents else durable

        walk(self.root.stat().st_ino, "")
        return found


def crash_states(root: Path, action: Callable[[], Any]) -> Iterator[State]:
    """What could be on the disk after each change that an action makes below `root`.

    Yields:
        What happened, the newest step that was saved by then, and the disk's content.
    """
    disk, states = Disk(root), list[State]()
    disk.look()
    disk.sync(root)
    done = 0

    def note(label: str) -> None:
        disk.look()
        states.append((f"all, {label}", done, disk.after(entries=True, contents=True)))
        states.append((f"synced, {label}", done, disk.after(entries=False, contents=False)))
        states.append((f"entries, {label}", done, disk.after(entries=True, contents=False)))

    def noted(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            if root.exists():
                note(f"{name} {Path(str(arguments[0])).name}")
            return result

        return call

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.is_relative_to(root):
            disk.sync(path)
            note(f"fsync {path.name}")

    def saved(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, step: int, *arguments: Any, **named: Any) -> Any:
            nonlocal done
            result = function(self, step, *arguments, **named)
            done = step
            note(f"saved {step}")
            return result

        return call

    from lm.checkpoint import CheckpointFolder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        for owner, name in ((Path, "rename"), (Path, "replace"), (Path, "mkdir"), (Path, "unlink"),
                            (shutil, "rmtree")):  # fmt: skip
            patch.setattr(owner, name, noted(getattr(owner, name), name))
        patch.setattr(CheckpointFolder, "save", saved(CheckpointFolder.save))
        action()
    disk.close()
    yield from states
