"""Answering as Django REST framework does, without Django.

A service that takes over an endpoint of a Django monolith must not be told from it by its clients. These
modules hold the part of that which knows no domain; all but `endpoint` are pure.

    ASGI scope ─ request.py ─► ApiRequest ─ endpoint.py ─► Answer ─► ASGI messages
                                              │
      negotiation.py  which renderer, which indent, 404 and 406
      query.py        the query string as Django's QueryDict reads it
      forms.py        filter parameters as django-filter's form fields clean them
      pagination.py   `count`, `next`, `previous`, `results`
      urls.py         absolute URLs as `build_absolute_uri` writes them
      answers.py      errors, JSON bytes, Django's own HTML pages, headers

The sources copied from are Django 5.2 and REST framework 3.16 and later; each function names its original.
Tests hold them equal to the originals on generated input.
"""
