"""The recordings: one real response a file, in vcrpy's form, with a note of where it was recorded."""

from contextlib import contextmanager
from functools import cache
from pathlib import Path

import yaml
from vcr import VCR
from vcr.persisters.filesystem import FilesystemPersister
from vcr.serialize import deserialize

HERE = Path(__file__).parent
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time, where there is one
CASES = sorted(path.relative_to(HERE).with_suffix("").as_posix() for path in HERE.glob("*/*.yaml"))


class Sequence(FilesystemPersister):
    """Several files as one cassette: their responses are played one after the other."""

    @classmethod
    def load_cassette(cls, cassette_path, serializer):
        requests, responses = [], []
        for case in str(cassette_path).split():
            more_requests, more_responses = deserialize(_text(case), serializer)
            requests += more_requests
            responses += more_responses
        return requests, responses


_vcr = VCR(record_mode="none", match_on=["method", "scheme", "host", "path"])
_vcr.register_persister(Sequence)


@contextmanager
def replay(*cases):
    """The responses of `cases`, in this order, each once, below every client; nothing is sent anywhere."""
    with _vcr.use_cassette(" ".join(cases)) as cassette:
        yield cassette


@cache
def recording(case):
    """The file as it is written."""
    return yaml.load(_text(case), LOADER)


def request_of(case):
    return recording(case)["interactions"][0]["request"]


@cache
def _text(case):
    return (HERE / f"{case}.yaml").read_text(encoding="utf-8")
