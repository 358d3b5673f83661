"""How an entry's fields become a body and headers, and back. Pure.

`fields`: one field for each field of the body, the default. `json`: the whole body in one field. A codec of your own is any object
with `name`, `encode` and `decoder`.
"""

from __future__ import annotations

from difflib import get_close_matches

from streamworker.codecs.base import Codec, Decoder
from streamworker.codecs.fields import FieldsCodec
from streamworker.codecs.json import JsonCodec
from streamworker.entries import read_headers
from streamworker.errors import SetupError

__all__ = ["Codec", "Decoder", "FieldsCodec", "JsonCodec", "codec_named", "read_headers"]


def codec_named(codec: str | Codec) -> Codec:
    """The codec of this name, or the given codec itself. Raises `SetupError` for anything else."""
    if isinstance(codec, str):
        if codec == "fields":
            return FieldsCodec()
        if codec == "json":
            return JsonCodec()
        near = get_close_matches(codec, ["fields", "json"], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "use 'fields', 'json', or in a program an object that encodes"
        raise SetupError(f"there is no codec {codec!r}; {hint}")
    if isinstance(codec, type) or not isinstance(codec, Codec):
        name = codec.__name__ if isinstance(codec, type) else type(codec).__name__
        raise SetupError(f"codec={name} is not a codec; give 'fields', 'json', or an instance with name, encode and decoder")
    return codec
