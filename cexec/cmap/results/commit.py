"""The end of a group of tasks: everything that each of them leaves behind, all of it or nothing, on disk.

Contract: `Committer.save` adds to files, tells the journal and renames, in the order that `journal` asks for, and
brings everything to disk before it says that a task is saved.  When something fails, the tasks that are not `saved`
have left nothing, and the coordinator has to stop: it may be the disk that is full.  Only those that are `committed`
may still be completed, when the journal is opened again.  It may wait for the disk, and is called by one thread at a
time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from cexec.cmap.inputs.notation import format_ranges
from cexec.cmap.results.journal import TaskEnd
from cexec.cmap.results.renames import ResultDirectories
from cexec.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

    from cexec.cmap.results.appending import AppendFile, Place
    from cexec.cmap.results.attempt_files import AttemptFiles
    from cexec.cmap.results.collect import EndedTask
    from cexec.cmap.results.journal import Journal, TaskClaim
    from cexec.cmap.results.syncing import Syncer

    class ResultWriter(Protocol):
        """One of those in `collect`."""

        file: AppendFile

        def adds(self, ended: EndedTask) -> bool: ...

        def additions(self, ended: EndedTask) -> Iterable[bytes]: ...


@dataclass(slots=True, eq=False)
class FinishedTask:
    """A task that is over: how it ended, what it wrote, and the journal's claim.

    `committed`: the journal has it as done, so that its files must stay, whatever happens then.
    """

    ended: EndedTask
    files: AttemptFiles
    claim: TaskClaim | None
    committed: bool = False


@dataclass(slots=True)
class Saved:
    """The tasks of a group that are saved, and the error that kept the others from it, if there are others."""

    tasks: Sequence[FinishedTask] = ()
    error: LocalError | None = field(default=None)


class Committer:
    """Saves the tasks of one run."""

    def __init__(self, journal: Journal | None, writers: Sequence[ResultWriter], syncer: Syncer) -> None:
        self._journal = journal
        self._writers = writers
        self._lasting = [writer for writer in writers if writer.file.regular]  # whose files are to be brought to disk
        self._syncer = syncer
        self._tables: set[str] = set()  # directories of files that are added to, which are on disk

    def takes_time(self, group: Iterable[FinishedTask]) -> bool:
        """True if saving these tasks waits for a disk, so that it is better done for many of them at once."""
        return self._journal is not None or (self._syncer.on and self._leaves_files(group))

    def only_prints(self, group: Iterable[FinishedTask]) -> bool:
        """True if these tasks leave nothing but what they write to pipes and terminals."""
        return self._journal is None and not self._leaves_files(group)

    def _leaves_files(self, group: Iterable[FinishedTask]) -> bool:
        for task in group:
            if task.files.on_disk:
                return True
            for writer in self._lasting:
                if writer.adds(task.ended):
                    return True
        return False

    def print_out(self, group: Sequence[FinishedTask]) -> Saved:
        """Saves tasks of which `only_prints` is true."""
        return self._add(group, ())

    def save(self, group: Sequence[FinishedTask]) -> Saved:
        """Saves the tasks in this order, up to the first one with which something is wrong."""
        if self.only_prints(group):
            return self.print_out(group)
        files = {id(w.file): w.file for w in self._writers for task in group if w.adds(task.ended)}.values()
        places = [(file, place) for file in files if (place := file.place()) is not None]
        intended, *errors = self._syncer.run(
            [partial(self._intend, places), *(partial(self._finish, task) for task in group)]
        )
        if intended is not None:
            return Saved((), intended)
        directories = ResultDirectories()
        try:
            whole = self._hold(group, errors, directories)
            try:
                added = self._add(whole.tasks, [file for file, _ in places])
                self._commit(added.tasks, [file for file, _ in places])
            except LocalError as error:
                self._take_back(places)
                return Saved((), error)
            named = self._rename(added.tasks, directories)
            return Saved(named.tasks, named.error or added.error or whole.error)
        finally:
            directories.close()

    def _intend(self, places: Sequence[tuple[AppendFile, Place]]) -> None:
        if self._journal is not None and places:
            self._journal.intend([place for _, place in places])

    def _finish(self, task: FinishedTask) -> None:
        if task.ended.outcome.succeeded:
            task.files.finish(sync=self._syncer.on)

    def _hold(
        self, group: Sequence[FinishedTask], errors: Sequence[LocalError | None], directories: ResultDirectories
    ) -> Saved:
        """Returns the tasks whose results are complete and can get their names, up to the first one that has none."""
        for number, (task, error) in enumerate(zip(group, errors, strict=True)):
            if error is not None:
                return Saved(group[:number], error)
            try:
                directories.hold(task.files.renames)
            except LocalError as trouble:
                return Saved(group[:number], trouble)
        return Saved(group)

    def _add(self, group: Sequence[FinishedTask], files: Sequence[AppendFile]) -> Saved:
        """Adds each task to the files, whole or not at all; what was written to a pipe before an error stays there."""
        for number, task in enumerate(group):
            places = [(file, place) for file in files if (place := file.place()) is not None] if files else []
            try:
                for writer in self._writers:
                    if writer.adds(task.ended):
                        writer.file.append(writer.additions(task.ended))
            except LocalError as error:
                for file, place in places:
                    file.take_back(place)
                return Saved(group[:number], error)
        return Saved(group)

    def _commit(self, group: Sequence[FinishedTask], files: Sequence[AppendFile]) -> None:
        """Brings all to disk that the journal will call done, and tells the journal."""
        if self._syncer.on:
            for error in self._syncer.run([file.sync for file in files]):
                if error is not None:
                    raise error
        tables = {file.directory for file in files if file.directory} - self._tables
        made = [path for task in group if task.files.renames for path in task.files.directories]
        self._syncer.sync_directories([*tables, *made])
        self._tables |= tables
        if self._journal is not None:
            ends = [TaskEnd(t.claim, t.ended.outcome, t.files.renames) for t in group if t.claim is not None]
            self._journal.commit(ends)
            for task in group:
                task.committed = True

    def _take_back(self, places: Sequence[tuple[AppendFile, Place]]) -> None:
        """As if the tasks had not ended."""
        for file, place in places:
            file.take_back(place)
        if self._journal is not None:
            try:
                self._journal.withdraw()
            except LocalError:
                pass  # the next run will take back what has been taken back, which is nothing

    def _rename(self, group: Sequence[FinishedTask], directories: ResultDirectories) -> Saved:
        errors = []
        named = []
        for task in group:
            try:
                directories.carry_out(task.files.renames)
                named.append(task)
            except LocalError as error:
                errors.append(error)
        try:
            self._syncer.sync_open(directories.descriptors())
            renamed = [task.claim for task in named if task.files.renames and task.claim is not None]
            if self._journal is not None and renamed:
                self._journal.settle(renamed)
        except LocalError as error:
            return Saved((), error)
        return Saved(named, errors[0] if errors else None)


def unsaved(numbers: Iterable[int]) -> str:
    """Returns the words for tasks that a coordinator could not save before it had to stop."""
    ascending = sorted(numbers)
    noun = "task" if len(ascending) == 1 else "tasks"
    return f"{noun} {format_ranges(ascending)} {'is' if len(ascending) == 1 else 'are'} not saved"
