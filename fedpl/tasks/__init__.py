"""What clients learn. Imports no torch up front."""

from fedpl.tasks.classification import Classification
from fedpl.tasks.images import ImageClassification
from fedpl.tasks.language import Choice, Generation
from fedpl.tasks.regression import Regression
from fedpl.tasks.task import Task

__all__ = ["Choice", "Classification", "Generation", "ImageClassification", "Regression", "Task"]
