"""Marks that people, rules and robots set on a log: what a mark is, and the append-only files that keep them."""

from hardware.annotation.mark import EVENTS, KINDS, SCHEMA, Annotation, By, is_range
from hardware.annotation.store import AnnotationStore, annotations, folder_of

__all__ = ["EVENTS", "KINDS", "SCHEMA", "Annotation", "AnnotationStore", "By", "annotations", "folder_of", "is_range"]
