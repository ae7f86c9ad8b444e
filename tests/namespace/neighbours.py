"""Functions of SciPy and scikit-learn, applied to Tensors and to NumPy arrays.

Run as a program, since SciPy reads SCIPY_ARRAY_API when it is first imported. It prints, for each
case, the type of the result and its largest difference from the result for NumPy arrays.
"""

import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.integrate
import scipy.special
import scipy.stats
import sklearn
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge, RidgeClassifier, RidgeCV
from sklearn.metrics import confusion_matrix, log_loss, r2_score, roc_auc_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder, MinMaxScaler, Normalizer, StandardScaler

import cartograd as cg

rng = np.random.default_rng(0)
X = rng.normal(size=(20, 4))
Y = X @ np.array([1.0, 2.0, 0.0, -1.0]) + 0.1
C = (Y > 0).astype(np.int64)
P = 1 / (1 + np.exp(-X[:, 0]))

# name: (function, arguments); each is applied to NumPy arrays and to Tensors.
CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "logsumexp": (lambda x: scipy.special.logsumexp(x, axis=1), (X,)),
    "logsumexp weighted": (lambda x, b: scipy.special.logsumexp(x, b=b), (X, X**2)),
    "softmax": (lambda x: scipy.special.softmax(x, axis=0), (X,)),
    "log_softmax": (lambda x: scipy.special.log_softmax(x, axis=1), (X,)),
    "erf": (scipy.special.erf, (X,)),
    "expit": (scipy.special.expit, (X,)),
    "gammaln": (scipy.special.gammaln, (P,)),
    "xlogy": (scipy.special.xlogy, (P, P)),
    "rel_entr": (scipy.special.rel_entr, (P, P[::-1])),
    "kurtosis": (scipy.stats.kurtosis, (X,)),
    "zscore": (scipy.stats.zscore, (X,)),
    "pearsonr": (lambda x, y: scipy.stats.pearsonr(x, y).statistic, (P, Y)),
    "ttest_ind": (lambda x, y: scipy.stats.ttest_ind(x, y).pvalue, (P, Y)),
    "trapezoid": (scipy.integrate.trapezoid, (X,)),
    "StandardScaler": (lambda x: StandardScaler().fit_transform(x), (X,)),
    "StandardScaler back": (
        lambda x: StandardScaler().fit(x).inverse_transform(x + 1),
        (X,),
    ),
    "MinMaxScaler": (lambda x: MinMaxScaler().fit_transform(x), (X,)),
    "Normalizer": (lambda x: Normalizer().fit_transform(x), (X,)),
    "LabelEncoder": (lambda y: LabelEncoder().fit_transform(y), (C,)),
    "Ridge": (lambda x, y: Ridge(solver="svd").fit(x, y).predict(x), (X, Y)),
    "Ridge coefficients": (lambda x, y: Ridge(solver="svd").fit(x, y).coef_, (X, Y)),
    "RidgeCV": (lambda x, y: RidgeCV().fit(x, y).predict(x), (X, Y)),
    "RidgeClassifier": (lambda x, y: RidgeClassifier(solver="svd").fit(x, y).predict(x), (X, C)),
    "PCA": (lambda x: PCA(2, svd_solver="full").fit_transform(x), (X,)),
    "PCA of covariances": (lambda x: PCA(2, svd_solver="covariance_eigh").fit_transform(x), (X,)),
    "LDA": (lambda x, y: LinearDiscriminantAnalysis().fit(x, y).predict_proba(x), (X, C)),
    "rbf_kernel": (lambda x: rbf_kernel(x, x), (X,)),
    "train_test_split": (lambda x: train_test_split(x, random_state=0)[1], (X,)),
    "confusion_matrix": (confusion_matrix, (C, C[::-1])),
    # scores are Python floats
    "r2_score": (r2_score, (Y, Y + 0.1)),
    "log_loss": (log_loss, (C, P)),
    "roc_auc_score": (roc_auc_score, (C, P)),
}


def main() -> None:
    warnings.simplefilter("error")
    found: dict[str, Any] = {}
    for name, (function, args) in CASES.items():
        want = np.asarray(function(*args))
        tensors = [cg.asarray(x) for x in args]
        before = [x.tolist() for x in tensors]
        with sklearn.config_context(array_api_dispatch=True):
            got = function(*tensors)
        off = np.max(np.abs(np.asarray(got) - want))
        unchanged = [x.tolist() for x in tensors] == before
        found[name] = (type(got).__name__, float(off), unchanged)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
