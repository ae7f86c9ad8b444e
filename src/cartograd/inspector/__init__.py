"""Looking into graphs: what each node holds, and how the gradient came back."""

from .explain import Explanation as Explanation
from .explain import explain as explain

__all__ = ["Explanation", "explain"]
