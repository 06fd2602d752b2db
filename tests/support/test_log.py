"""Warnings that are given once."""

from __future__ import annotations

import logging

from aimeter._support import log


def test_a_warning_is_given_once_for_its_key(caplog):
    said = set()
    for message, key in (("one", "a"), ("two", "a"), ("three", None), ("three", None), ("four", "three")):
        log.warn_once(message, key, said=said)
    assert caplog.messages == ["one", "three"]
    log.warn_once("one", "a", said=set())
    assert caplog.messages == ["one", "three", "one"]


def test_a_message_is_no_format(caplog):
    log.warn_once("100 %s of {it}", said=set())
    assert caplog.messages == ["100 %s of {it}"]


def test_a_handler_that_raises_is_no_concern_of_the_program():
    class Handler(logging.Handler):
        def emit(self, record):
            raise RuntimeError(record)

    handler = Handler()
    log.logger.addHandler(handler)
    try:
        log.warn_once("something", said=set())
    finally:
        log.logger.removeHandler(handler)
