"""A trained support vector machine as plain arrays: no pickle, and no scikit-learn to evaluate it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from leukokit.errors import WeightsError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SupportVectorMachine:
    """An SVM of radial basis functions, one class against one, with the scaler before it.

    Attributes:
        mean: (F,) subtracted from the features.  scale: (F,) what they are then divided by.
        vectors: (V, F) support vectors, those of a class together.
        counts: (C,) support vectors of each class.
        coefficients: (C - 1, V) dual coefficients, as libsvm orders them.
        intercepts: (C (C - 1) / 2,), pairs in the order 01, 02, ..., 12, ...
        gamma: (1,) of the kernel exp(-gamma |u - v|^2).
    """

    mean: Floats
    scale: Floats
    vectors: Floats
    counts: Floats
    coefficients: Floats
    intercepts: Floats
    gamma: Floats

    def __post_init__(self) -> None:
        vectors, features = self.vectors.shape if self.vectors.ndim == 2 else (-1, -1)
        classes = len(self.counts)
        shapes = {
            "mean": (features,),
            "scale": (features,),
            "counts": (classes,),
            "coefficients": (classes - 1, vectors),
            "intercepts": (classes * (classes - 1) // 2,),
            "gamma": (1,),
        }
        wrong = [name for name, shape in shapes.items() if getattr(self, name).shape != shape]
        if wrong or features < 0 or int(self.counts.sum()) != vectors:
            raise ValueError(f"arrays do not fit together ({', '.join(wrong) or 'vectors'})")

    @classmethod
    def of(cls, scaler: Any, machine: Any) -> SupportVectorMachine:
        """From a fitted scikit-learn ``StandardScaler`` and ``SVC(kernel="rbf")`` of three classes or more.

        Values are rounded to float32, as they are stored.
        """
        arrays = {
            "mean": scaler.mean_,
            "scale": scaler.scale_,
            "vectors": machine.support_vectors_,
            "counts": machine.n_support_,
            "coefficients": machine.dual_coef_,
            "intercepts": machine.intercept_,
            # scikit-learn tells the number behind "scale" nowhere else.
            "gamma": [machine._gamma],
        }
        return cls(**{name: _stored(value).astype(np.float64) for name, value in arrays.items()})

    @classmethod
    def load(cls, path: Path) -> SupportVectorMachine:
        """Read what ``save`` wrote.

        Raises:
            WeightsError: missing or damaged file, or one that holds something else.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            stored = load_file(path)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path}: not readable as safetensors ({error})") from error
        try:
            return cls(**{name: value.astype(np.float64) for name, value in stored.items()})
        except (TypeError, ValueError) as error:
            raise WeightsError(f"{path}: no support vector machine ({error}); train it again") from error

    def save(self, path: Path) -> None:
        """Write single-precision safetensors, whole or not at all."""
        from safetensors.numpy import save_file

        partial = path.with_name(path.name + ".part")
        save_file({field.name: _stored(getattr(self, field.name)) for field in fields(self)}, partial)
        partial.replace(path)
        path.chmod(0o644)

    def pairwise(self, features: Floats) -> Floats:
        """Decision values (N, C (C - 1) / 2) of features (N, F); above 0 speaks for a pair's first class."""
        scaled = (features - self.mean) / self.scale
        squares = (scaled**2).sum(axis=1)[:, None] + (self.vectors**2).sum(axis=1)[None, :]
        kernel = np.exp(-self.gamma * np.maximum(squares - 2 * scaled @ self.vectors.T, 0.0))
        ends = np.cumsum(self.counts).astype(int)
        spans = [slice(end - int(count), end) for end, count in zip(ends, self.counts, strict=True)]
        columns = []
        for first in range(len(spans)):
            for second in range(first + 1, len(spans)):
                # Row of a class's coefficients against another: the classes without itself, in order.
                own = kernel[:, spans[first]] @ self.coefficients[second - 1, spans[first]]
                other = kernel[:, spans[second]] @ self.coefficients[first, spans[second]]
                columns.append(own + other)
        return np.asarray(np.stack(columns, axis=1) + self.intercepts)

    def decision(self, features: Floats) -> Floats:
        """One value a class, (N, C): its votes among the pairs, and its certainty as a fraction of a vote.

        The same as ``SVC.decision_function`` of scikit-learn with ``decision_function_shape="ovr"``.
        """
        pairs = self.pairwise(features)
        classes = len(self.counts)
        votes = np.zeros((len(features), classes))
        sure = np.zeros((len(features), classes))
        column = 0
        for first in range(classes):
            for second in range(first + 1, classes):
                value = pairs[:, column]
                votes[:, first] += value > 0
                votes[:, second] += value <= 0
                sure[:, first] += value
                sure[:, second] -= value
                column += 1
        return np.asarray(votes + sure / (3 * (np.abs(sure) + 1)))


def _stored(value: Any) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(value, dtype=np.float32)
