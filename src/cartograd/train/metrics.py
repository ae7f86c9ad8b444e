"""Metrics: one number about many examples, right however these are cut into batches.

A metric adds up what it needs from each batch of NumPy values and divides at the end, so that a
short last batch counts for what it holds. Metrics of classes take scores (logits or
probabilities) with one class a column; a row with a NaN is never right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ..errors import FileFormatError, ShapeError, UsageError

__all__ = [
    "F1",
    "MAE",
    "R2",
    "RMSE",
    "Accuracy",
    "BitsPerByte",
    "MeanLoss",
    "Metric",
    "Perplexity",
    "TopKAccuracy",
    "known_metrics",
    "make_metric",
]

Values = npt.NDArray[Any]


class Metric:
    """The base of every metric: `update` with each batch, `compute` the number, `reset`.

    `name` is what it is called in logs; `higher_is_better` tells callbacks which way is up. One
    that makes do with the loss and the target says so by `needs_output = False`: it may be given
    None for the output.
    A subclass keeps its running sums in `totals` (numbers and arrays): these are what a
    checkpoint holds.

    >>> metric = Accuracy()
    >>> metric.update(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]), loss=0.5)
    >>> metric.compute()
    0.5
    """

    higher_is_better: ClassVar[bool] = False
    needs_output: ClassVar[bool] = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.totals: dict[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Forget every batch."""
        self.totals = {"count": 0}

    def update(self, output: Values, target: Values, *, loss: float) -> None:
        """Take in one batch: the model's output, the target, and their mean loss."""
        raise NotImplementedError

    def compute(self) -> float:
        """Return the number; raises UsageError where no example has been seen."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the running sums."""
        return dict(self.totals)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from running sums that `state_dict` gave."""
        if set(state) != set(self.totals):
            raise FileFormatError(
                f"metric {self.name}: the state has {sorted(state)}, not {sorted(self.totals)}"
            )
        self.totals = dict(state)

    def config(self) -> dict[str, Any]:
        """Return the settings that make the number what it is."""
        return {
            "type": type(self).__name__,
            **{key: value for key, value in vars(self).items() if key != "totals"},
        }

    def _mean(self, total: str) -> float:
        count = self.totals["count"]
        if not count:
            raise UsageError(f"metric {self.name}: no example has been seen, so it has no value")
        return float(self.totals[total] / count)


class MeanLoss(Metric):
    """The mean of the loss over examples (the entries of the target's first axis).

    >>> metric = MeanLoss()
    >>> metric.update(np.zeros((3, 1)), np.zeros((3, 1)), loss=1.0)
    >>> metric.update(np.zeros((1, 1)), np.zeros((1, 1)), loss=5.0)
    >>> metric.compute()
    2.0
    """

    needs_output = False

    def __init__(self, name: str = "loss") -> None:
        super().__init__(name)

    def reset(self) -> None:
        """Forget every batch."""
        self.totals = {"count": 0, "loss": 0.0}

    def update(self, output: Values, target: Values, *, loss: float) -> None:
        """Take in one batch; only the loss and the number of examples count."""
        count = len(target) if target.ndim else 1
        self.totals["count"] += count
        self.totals["loss"] += loss * count

    def compute(self) -> float:
        """Return the mean loss an example."""
        return self._mean("loss")


class Accuracy(Metric):
    """The share of examples whose highest score is at the target's class.

    Scores have the classes along `axis` (1, as in `cross_entropy`; -1 for a text model that gives
    batch, position, class); the target has the other axes. Scores of the target's own shape are
    binary: above `threshold` (0, for logits) means class 1. Targets equal to `ignore_index` do not
    count. Of equal scores the first class wins.

    >>> metric = Accuracy()
    >>> metric.update(np.array([[1.0, 2.0, 0.0]]), np.array([1]), loss=0.0)
    >>> metric.compute()
    1.0
    """

    higher_is_better = True

    def __init__(
        self,
        name: str = "accuracy",
        *,
        axis: int = 1,
        threshold: float = 0.0,
        ignore_index: int | None = None,
    ) -> None:
        self.axis, self.threshold, self.ignore_index = axis, threshold, ignore_index
        super().__init__(name)

    def reset(self) -> None:
        """Forget every batch."""
        self.totals = {"count": 0, "right": 0}

    def update(self, output: Values, target: Values, *, loss: float) -> None:
        """Take in scores and integer classes."""
        if output.shape == target.shape:
            _require_classes(self.name, target)
            guess = np.where(np.isnan(output), -1, output > self.threshold)
            right, keep = guess == target, _kept(target, self.ignore_index)
        else:
            scores, classes = _rows(self.name, output, target, self.axis)
            right = np.argmax(scores, axis=1) == classes
            right &= ~np.isnan(scores).any(axis=1)
            keep = _kept(classes, self.ignore_index)
        self.totals["count"] += int(keep.sum())
        self.totals["right"] += int((right & keep).sum())

    def compute(self) -> float:
        """Return the share, from 0 to 1."""
        return self._mean("right")


class TopKAccuracy(Metric):
    """The share of examples whose target is among the `k` highest scores.

    Shapes are those of Accuracy. Of equal scores the first classes are the higher ones, so that
    k=1 is Accuracy.

    >>> metric = TopKAccuracy(2)
    >>> metric.update(np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), np.array([1, 2]), loss=0.0)
    >>> metric.compute()
    0.5
    """

    higher_is_better = True

    def __init__(
        self,
        k: int = 5,
        name: str | None = None,
        *,
        axis: int = 1,
        ignore_index: int | None = None,
    ) -> None:
        if k < 1:
            raise UsageError(f"TopKAccuracy: k={k}, but at least the best one is looked at")
        self.k, self.axis, self.ignore_index = k, axis, ignore_index
        super().__init__(f"top{k}_accuracy" if name is None else name)

    def reset(self) -> None:
        """Forget every batch."""
        self.totals = {"count": 0, "right": 0}

    def update(self, output: Values, target: Values, *, loss: float) -> None:
        """Take in scores and integer classes."""
        scores, classes = _rows(self.name, output, target, self.axis)
        keep = _kept(classes, self.ignore_index)
        scores, classes = scores[keep], classes[keep]
        _require_in_range(self.name, classes, scores.shape[1])
        own = np.take_along_axis(scores, classes[:, None].astype(np.int64), axis=1)
        columns = np.arange(int(scores.shape[1]), dtype=np.int64)
        before = columns < classes[:, None]
        above = (scores > own) | ((scores == own) & before)
        right = (above.sum(axis=1) < self.k) & ~np.isnan(scores).any(axis=1)
        self.totals["count"] += len(classes)
        self.totals["right"] += int(right.sum())

    def compute(self) -> float:
        """Return the share, from 0 to 1."""
        return self._mean("right")


class F1(Metric):
    """The harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN), as scikit-learn's.

    Scores and targets are those of Accuracy. `average` is "macro" (the mean over classes that
    occur, guessed or given), "micro" (all counts together), "weighted" (by the number of targets)
    or "binary" (class 1). Where nothing of a class is guessed or there, its F1 is 0.

    >>> metric = F1()
    >>> metric.update(np.eye(3)[[0, 1, 1]], np.array([0, 1, 2]), loss=0.0)
    >>> round(metric.compute(), 4)
    0.5556
    """

    higher_is_better = True

    def __init__(
        self,
        average: Literal["macro", "micro", "weighted", "binary"] = "macro",
        name: str = "f1",
        *,
        axis: int = 1,
        threshold: float = 0.0,
        ignore_index: int | None = None,
    ) -> None:
        if average not in ("macro", "micro", "weighted", "binary"):
            raise UsageError(
                f"F1: average={average!r} is none of 'macro', 'micro', 'weighted', 'binary'"
            )
        self.average, self.axis, self.threshold = average, axis, threshold
        self.ignore_index = ignore_index
        super().__init__(name)

    def reset(self) -> None:
        """Forget every batch."""
        none = np.zeros(0, np.int64)
        self.totals = {"count": 0, "hit": none, "guessed": none, "given": none}

    def update(self, output: Values, target: Values, *, loss: float) -> None:
        """Take in scores and integer classes."""
        if output.shape == target.shape:
            _require_classes(self.name, target)
            guess = np.where(np.isnan(output), -1, output > self.threshold).ravel()
            classes, columns = target.ravel(), 2
        else:
            scores, classes = _rows(self.name, output, target, self.axis)
            guess = np.where(np.isnan(scores).any(axis=1), -1, np.argmax(scores, axis=1))
            columns = scores.shape[1]
        keep = _kept(classes, self.ignore_index)
        guess, classes = guess[keep], classes[keep].astype(np.int64)
        _require_in_range(self.name, classes, columns)
        counted = {
            "hit": classes[guess == classes],
            "guessed": guess[guess >= 0],
            "given": classes,
        }
        for key, which in counted.items():
            new = np.bincount(which, minlength=columns)
            old = self.totals[key]
            new[: len(old)] += old[: len(new)]
            self.totals[key] = new
        self.totals["count"] += len(classes)

    def compute(self) -> float:
        """Return F1, from 0 to 1."""
        self._mean("count")  # says so where nothing was seen
        hit, size = self.totals["hit"], self.totals["guessed"] + self.totals["given"]
        if self.average == "micro":
            return float(2 * hit.sum() / size.sum())
        scores = 2 * hit / np.maximum(size, 1)
        if self.average == "binary":
            return float(scores[1]) if len(scores) > 1 else 0.0
        if self.average == "weighted":
            return float(np.average(scores, weights=self.totals["given"]))
        return float(scores[size > 0].mean())


class MAE(Metric):
    """The mean of |output - target| over every number.

    >>> metric = MAE()
    >>> metric.update(np.array([1.0, 2.0]), np.array([2.0, 4.0]), loss=0.0)
    >>> metric.compute()
    1.5
    """

    def __init__(self, name: str = "mae") -> None:
        super().__init__(name)

    def reset(self) -> None:
        """Forget every batch."""
        self.totals = {"count": 0, "error": 0.0}

    def update(self, output: Values, target: Values, *, loss: float) -> None:
        """Take in outputs and targets of one shape."""
        error = _errors(self.name, output, target)
        self.totals["count"] += error.size
        self.totals["error"] += float(np.abs(error).sum())

    def compute(self) -> float:
        """Return the mean absolute error."""
        return self._mean("error")


class RMSE(Metric):
    """The square root of the mean of (output - target)^2 over every number.

    >>> metric = RMSE()
    >>> metric.update(np.array([1.0, 2.0]), np.array([4.0, 6.0]), loss=0.0)
    >>> round(metric.compute(), 6)
    3.535534
    """

    def __init__(self, name: str = "rmse") -> None:
        super().__init__(name)

    def reset(self) -> None:
        """Forget every batch."""
        self.totals = {"count": 0, "squared": 0.0}

    def update(self, output: Values, target: Values, *, loss: float) -> None:
        """Take in outputs and targets of one shape."""
        error = _errors(self.name, output, target)
        self.totals["count"] += error.size
        self.totals["squared"] += float(np.square(error).sum())

    def compute(self) -> float:
        """Return the root mean square error."""
        return math.sqrt(self._mean("squared"))


class R2(Metric):
    """The share of the target's variance that the output explains: 1 - SS_res / SS_tot.

    With several columns it is the mean over them. A target that does not vary gives 1 where every
    output is right and 0 otherwise, as in scikit-learn; below two examples it is NaN. The variance
    is merged from batch to batch (Chan, Golub and LeVeque 1979), so no digits cancel.

    >>> metric = R2()
    >>> metric.update(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]), loss=0.0)
    >>> round(metric.compute(), 6)
    0.785714
    """

    higher_is_better = True

    def __init__(self, name: str = "r2") -> None:
        super().__init__(name)

    def reset(self) -> None:
        """Forget every batch."""
        none = np.zeros(0)
        self.totals = {"count": 0, "residual": none, "mean": none, "spread": none}

    def update(self, output: Values, target: Values, *, loss: float) -> None:
        """Take in outputs and targets of one shape, examples along the first axis."""
        error = _errors(self.name, output, target)
        if not error.size:
            return
        error = error.reshape(len(target) if target.ndim else 1, -1)
        value = target.astype(np.float64).reshape(error.shape)
        old, new = self.totals["count"], len(value)
        mean, residual = value.mean(axis=0), np.square(error).sum(axis=0)
        spread = np.square(value - mean).sum(axis=0)
        if old:
            if mean.shape != self.totals["mean"].shape:
                raise ShapeError(
                    f"metric {self.name}: {mean.size} columns, after {self.totals['mean'].size}"
                )
            apart = mean - self.totals["mean"]
            residual += self.totals["residual"]
            spread += self.totals["spread"] + np.square(apart) * (old * new / (old + new))
            mean = self.totals["mean"] + apart * (new / (old + new))
        self.totals = {"count": old + new, "residual": residual, "mean": mean, "spread": spread}

    def compute(self) -> float:
        """Return R2: at most 1, and below 0 where the mean would have been the better guess."""
        self._mean("count")
        if self.totals["count"] < 2:
            return math.nan
        residual, spread = self.totals["residual"], self.totals["spread"]
        flat = np.where(residual == 0, 1.0, 0.0)
        varies = spread > 0
        return float(np.mean(np.where(varies, 1 - residual / np.where(varies, spread, 1), flat)))


class _PerTarget(Metric):
    """The mean of the loss over targets (words, bytes, pixels), the ignored ones left out."""

    needs_output = False

    def __init__(self, name: str, ignore_index: int | None) -> None:
        self.ignore_index = ignore_index
        super().__init__(name)

    def reset(self) -> None:
        """Forget every batch."""
        self.totals = {"count": 0, "loss": 0.0}

    def update(self, output: Values, target: Values, *, loss: float) -> None:
        """Take in a batch's mean loss in nats; the target says over how many it is the mean."""
        count = int(_kept(target, self.ignore_index).sum())
        self.totals["count"] += count
        if count:  # the mean over no targets at all says nothing
            self.totals["loss"] += loss * count


class Perplexity(_PerTarget):
    """The exponential of the mean cross-entropy (in nats) a target.

    Targets equal to `ignore_index` do not count: give the number that the loss was given.

    >>> metric = Perplexity()
    >>> metric.update(np.zeros((2, 8)), np.zeros(2, int), loss=math.log(8))
    >>> round(metric.compute(), 6)
    8.0
    """

    def __init__(self, name: str = "perplexity", *, ignore_index: int | None = None) -> None:
        super().__init__(name, ignore_index)

    def compute(self) -> float:
        """Return the perplexity; infinity where it is beyond float64."""
        mean = self._mean("loss")
        return math.exp(mean) if mean < 709 or math.isnan(mean) else math.inf


class BitsPerByte(_PerTarget):
    """The mean cross-entropy of a byte-level model, in bits: the loss in nats / ln 2.

    >>> metric = BitsPerByte()
    >>> metric.update(np.zeros((2, 256)), np.zeros(2, int), loss=math.log(256))
    >>> metric.compute()
    8.0
    """

    def __init__(self, name: str = "bits_per_byte", *, ignore_index: int | None = None) -> None:
        super().__init__(name, ignore_index)

    def compute(self) -> float:
        """Return the bits that a byte takes."""
        return self._mean("loss") / math.log(2)


known_metrics: dict[str, type[Metric]] = {
    "accuracy": Accuracy,
    "top_k_accuracy": TopKAccuracy,
    "f1": F1,
    "mae": MAE,
    "rmse": RMSE,
    "r2": R2,
    "perplexity": Perplexity,
    "bits_per_byte": BitsPerByte,
}
"""The metrics that a Trainer knows by name."""


def make_metric(what: str | Metric) -> Metric:
    """Return the metric of that name with its default settings, or the metric itself.

    >>> make_metric("accuracy").name
    'accuracy'
    """
    if isinstance(what, Metric):
        return what
    if what not in known_metrics:
        raise UsageError(
            f"there is no metric {what!r}; there are {', '.join(known_metrics)}, "
            "or give an object of a class made from cg.train.Metric"
        )
    return known_metrics[what]()  # pyright: ignore[reportCallIssue]


def _kept(target: Values, ignore_index: int | None) -> npt.NDArray[np.bool_]:
    return np.ones(target.shape, bool) if ignore_index is None else target != ignore_index


def _require_classes(name: str, target: Values) -> None:
    if target.dtype.kind not in "iub":
        raise ShapeError(
            f"metric {name}: output and target both have shape {target.shape} and the target is "
            f"{target.dtype}; give integer or boolean classes"
        )


def _require_in_range(name: str, classes: Values, columns: int) -> None:
    wrong = classes[(classes < 0) | (classes >= columns)]
    if wrong.size:
        raise UsageError(
            f"metric {name}: the target holds class {wrong[0]}, but the output has {columns} "
            "columns (0 is the first); set ignore_index for targets that do not count"
        )


def _rows(name: str, output: Values, target: Values, axis: int) -> tuple[Values, Values]:
    """Scores as (examples, classes) and classes as (examples,)."""
    expected: Sequence[int] = ()
    if output.ndim > max(axis, -axis - 1):
        expected = np.delete(output.shape, axis).tolist()
    if target.dtype.kind not in "iub" or tuple(expected) != target.shape or not output.ndim:
        raise ShapeError(
            f"metric {name}: output {output.dtype}{output.shape} and target "
            f"{target.dtype}{target.shape}, but with the classes on axis {axis} the target must "
            "hold integers and have the output's other axes; set axis= to where the classes are"
        )
    scores = np.moveaxis(output, axis, -1)
    return scores.reshape(-1, scores.shape[-1]), target.reshape(-1)


def _errors(name: str, output: Values, target: Values) -> npt.NDArray[np.float64]:
    if output.shape != target.shape:
        raise ShapeError(
            f"metric {name}: output has shape {output.shape}, the target {target.shape}; "
            "reshape one of them, they are not broadcast"
        )
    return output.astype(np.float64) - target.astype(np.float64)
