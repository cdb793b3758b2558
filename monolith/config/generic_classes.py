"""Lets annotations such as `ModelAdmin[Product]` run.

The type stubs of Django say these classes are generic; Django 5.2 itself gave `__class_getitem__` to
querysets, managers and foreign keys only. The same patch ships in django-stubs-ext, which would be a run-time
dependency for ten lines.
"""

from typing import Any

from django.contrib.admin.options import BaseModelAdmin
from django.forms.models import BaseModelForm


def allow_subscripts() -> None:
    """Make `Class[Model]` mean `Class` at run time. Safe to call again."""
    generic: tuple[type, ...] = (BaseModelAdmin, BaseModelForm)
    for cls in generic:
        setattr(cls, "__class_getitem__", classmethod(_same_class))  # noqa: B010  (not an attribute mypy knows)


def _same_class(cls: type, _item: Any) -> type:
    return cls
