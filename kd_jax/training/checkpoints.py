"""Checkpoints: a state with a checksum for every leaf, verified on restore; damage is announced and
  stepped over.

Orbax writes each one into a temporary folder and renames it, so a kill leaves either all of a
checkpoint or none. What it doesn't notice, a flipped bit in array data, the checksums do."""

import json
import logging
import math
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from kd_jax.core.pytree import checksums, describe
from kd_jax.core.types import PyTree

log = logging.getLogger("kd_jax")

DAMAGE = (ValueError, KeyError, OSError, TypeError)
"""What Orbax raises for files that are truncated, missing or altered; it has no type of its own for
that."""


class CheckpointError(Exception):
    """A checkpoint that can't be used or can't be written."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint whose files are incomplete or altered."""


def ranking(metrics: Mapping[str, Any]) -> tuple[float, float, float]:
    """Ranks checkpoints, best last: by selection score, then by loss, then the earlier step."""
    # Checkpoints of before there were tasks are ranked by the accuracy.
    score = metrics["score"] if "score" in metrics else metrics["accuracy"]
    return -math.inf if score is None else score, -metrics["loss"], -metrics["step"]


@dataclass
class KeepLatestAndBest:
    """Chooses the checkpoints that stay: the newest, and the best by their sealed metrics.

    Orbax would rank by a metrics file of its own, which it reads unchecked. Here ranks come from
    each checkpoint's sealed description, so a damaged file can't change which one is best.

    Attributes:
      latest: how many of the newest stay.
      best: how many of the best by `ranking` stay as well.
      metrics: step -> "score", "loss" and "step"; a step that isn't there isn't ranked.
    """

    latest: int
    best: int
    metrics: dict[int, dict[str, Any]] = field(default_factory=dict)

    def order(self, steps: Iterable[int]) -> list[int]:
        """Returns the ranked ones of some steps, the best last."""
        known = [step for step in steps if step in self.metrics]
        return sorted(known, key=lambda step: ranking(self.metrics[step]))

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Says of each checkpoint, oldest first, whether it stays; Orbax calls this."""
        del context  # Orbax's own clock and process, which nothing here depends on.
        steps = [checkpoint.step for checkpoint in checkpoints]
        # The newest stays for resuming and the best for the result; they are often not the same.
        kept = {*steps[-self.latest :], *self.order(steps)[-self.best :]}
        return [step in kept for step in steps]


class Checkpoints:
    """The checkpoints of one trained group, in one folder.

    Args:
      directory: where; created when missing.
      keep_latest: how many of the newest stay.
      keep_best: how many of the best by `ranking` stay as well.

    Raises:
      ValueError: if either is below 1.
    """

    def __init__(self, directory: Path, *, keep_latest: int, keep_best: int):
        if keep_latest < 1 or keep_best < 1:
            raise ValueError(
                "checkpoint.keep_latest and keep_best must be at least 1, got"
                f" {keep_latest}, {keep_best}"
            )
        # Orbax takes absolute paths only.
        self.directory = directory.resolve()
        self._policy = KeepLatestAndBest(keep_latest, keep_best)
        # The policy is asked by Orbax after each save; it never looks at Orbax's own metrics.
        options = ocp.CheckpointManagerOptions(preservation_policy=self._policy)
        # The order matters: Orbax lists the folder when its manager is made.
        self._remove_leftovers()
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        # The policy's ranks live in memory, so after a restart they are read from the checkpoints.
        for step in self.steps():
            self._rank(step)

    def _remove_leftovers(self) -> None:
        """Removes what a kill inside a save left, before Orbax reads anything."""
        if jax.process_index() == 0:
            # Half a checkpoint is of no use, and Orbax would list it.
            for leftover in self.directory.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(leftover, ignore_errors=True)
        # No process may open the folder while the first one still deletes in it.
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("leftovers of checkpoints removed")

    def _rank(self, step: int) -> None:
        try:
            meta = self._meta(step, f"checkpoint {self.directory / str(step)}")
        except DamagedCheckpoint:
            return  # Whoever restores it will say so; until then it isn't ranked.
        # A checkpoint from a stopped run has no metrics and stays unranked.
        if meta.get("metrics"):
            self._policy.metrics[step] = {**meta["metrics"], "step": step}

    def since_best(self) -> int:
        """Returns the steps from the best ranked checkpoint to the newest ranked one."""
        ranked = self._policy.order(self._policy.metrics)
        return max(ranked) - ranked[-1] if ranked else 0

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(
        self, step: int, state: PyTree, meta: Mapping[str, Any], metrics: Mapping[str, float] | None
    ) -> None:
        """Begins to write a checkpoint; returns once the state may change.

        Args:
          step: training steps taken.
          state: the state; it must be the same in every process.
          meta: JSON values kept beside it (data position, seconds trained, ...).
          metrics: "score", of which more is better, and "loss" on the selection split, for
            `ranking`; None keeps it from being ranked.

        Raises:
          CheckpointError: if the one before could not be written (a full disk, say).
        """
        # Description and checksums are sealed by a checksum of their own.
        body = json.dumps(
            {
                **meta,
                "step": step,
                "metrics": metrics,
                "leaves": describe(state),
                "checksums": checksums(state),
            }
        )
        sealed = {"body": body, "checksum": zlib.crc32(body.encode())}
        written = jax.tree.map(_writable, state)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(written), meta=ocp.args.JsonSave(sealed)
        )
        # Entered first, since Orbax may ask the policy while it saves.
        if metrics:
            self._policy.metrics[step] = {**metrics, "step": step}
        try:
            # An error of the save before this one comes out here, since writing goes on in the
            # background.
            begun = self._manager.save(step, args=args)
        except (OSError, ValueError) as error:
            raise self._not_written(error) from error
        # Orbax doesn't raise when it skips a step that isn't newer than the last; it returns False.
        if not begun:
            raise self._not_written(ValueError(f"step {step} is there already, or a later one"))

    def wait(self) -> None:
        """Returns once everything is on disk.

        Raises:
          CheckpointError: if it could not be written.
        """
        # Writing is asynchronous, so a full disk often shows only here.
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise self._not_written(error) from error

    def _not_written(self, error: Exception) -> CheckpointError:
        # What the operating system said stands last, after the files' long names.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[-1].rpartition('": ')[2][:300]
        kept = self.last_good() or "none"
        return CheckpointError(
            f"a checkpoint could not be written to {self.directory}: {reason}; last good: {kept}"
        )

    def last_good(self) -> str | None:
        """Names the newest complete checkpoint's folder, for messages."""
        steps = self.steps()
        return str(self.directory / str(steps[-1])) if steps else None

    def restore_latest(self, template: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """Restores the newest undamaged state and its meta; None when there is no checkpoint at
        all.

        Damaged ones are announced and deleted, so that training may write those steps again.

        Args:
          template: a state of the wanted structure, shapes, dtypes and shardings.

        Raises:
          CheckpointError: if a checkpoint belongs to another model or config, or if all are
            damaged.
        """
        # The newest first: each step back costs training time.
        found = self.steps()
        for step in reversed(found):
            try:
                restored = self.restore(step, template)
            except DamagedCheckpoint as error:
                # The list is read anew, since a damaged checkpoint may have been discarded
                # meanwhile.
                older = [s for s in self.steps() if s < step]
                following = (
                    f"falling back to step {older[-1]}" if older else "there is no older one"
                )
                log.warning("%s; %s", error, following)
                if older:
                    self._discard(step)
                continue
            return restored
        if found:
            raise CheckpointError(
                f"every checkpoint in {self.directory} is damaged; delete that folder to train from"
                " the start"
            )
        return None

    def _discard(self, step: int) -> None:
        if jax.process_index() == 0:
            shutil.rmtree(self.directory / str(step), ignore_errors=True)
        # Orbax keeps its own list of steps, which has to be read again after the deletion.
        self._policy.metrics.pop(step, None)
        self._manager.reload()

    def restore_best(self, template: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Restores the best undamaged state by `ranking`, and its meta.

        Damage is announced and the next best taken.

        Raises:
          CheckpointError: as in `restore_latest`, and when there is none.
        """
        # Only ranked checkpoints are tried, so one of a stopped run is never taken as the best.
        order = self._policy.order(self.steps())
        for step in reversed(order):
            try:
                return self.restore(step, template)
            except DamagedCheckpoint as error:
                log.warning("%s; taking the next best", error)
        raise CheckpointError(f"there is no undamaged checkpoint in {self.directory}")

    def restore(self, step: int, template: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Restores the state saved at `step`, on the template's shardings, and its meta.

        Raises:
          DamagedCheckpoint: if it can't be read whole or a checksum differs.
          CheckpointError: if its leaves are not the template's, naming the first that differs.
        """
        where = f"checkpoint {self.directory / str(step)}"
        # The small description first: it names a wrong model before any array is read.
        meta = self._meta(step, where)
        # Another model's checkpoint isn't damaged, and must not be stepped over in silence.
        self._check_structure(meta["leaves"], describe(template), where)
        # Shapes with shardings let Orbax read each array straight to the devices where it lives.
        wanted = abstract(template)
        try:
            args = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
            state = self._manager.restore(step, args=args)["state"]
        except DAMAGE as error:
            raise DamagedCheckpoint(f"{where} is damaged: {_first_line(error)}") from error
        # What was read is compared with what was in memory when it was saved.
        for path, checksum in checksums(state).items():
            if checksum != meta["checksums"][path]:
                raise DamagedCheckpoint(f"{where} is damaged: the checksum of {path} differs")
        return state, meta

    def _meta(self, step: int, where: str) -> dict[str, Any]:
        try:
            sealed = self._manager.restore(
                step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
            )["meta"]
            return _unsealed(sealed)
        except DAMAGE as error:
            raise DamagedCheckpoint(f"{where} is damaged: {_first_line(error)}") from error

    def _check_structure(self, stored: dict[str, Any], wanted: dict[str, Any], where: str) -> None:
        # Sorted, so that every process names the same leaf.
        for path in sorted(stored.keys() | wanted.keys()):
            if stored.get(path) != wanted.get(path):
                raise CheckpointError(
                    f"{where} doesn't fit the config: {path} is {stored.get(path, 'absent')} there"
                    f" and"
                    f" {wanted.get(path, 'absent')} here"
                )

    def close(self) -> None:
        """Waits for writes and releases the folder."""
        self.wait()
        self._manager.close()


def _unsealed(sealed: Mapping[str, Any]) -> dict[str, Any]:
    # The description decides which checkpoint is best, so it has a checksum of its own.
    if zlib.crc32(sealed["body"].encode()) != sealed["checksum"]:
        raise ValueError("the checksum of its description differs")
    return json.loads(sealed["body"])


def _writable(leaf: Any) -> Any:
    """Returns the leaf as Orbax takes it: of pmap's copies in a cluster, one in memory."""
    return np.asarray(leaf) if jax.process_count() > 1 and leaf.is_fully_addressable else leaf


def abstract(tree: PyTree) -> PyTree:
    """Returns shapes, dtypes and shardings in place of a tree's arrays."""

    def of(leaf: Any) -> jax.ShapeDtypeStruct:
        # NumPy leaves have no sharding, so none is asked for.
        sharding = getattr(leaf, "sharding", None)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(of, tree)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
