"""Requests to VikingDB through its SDK: connecting at the first use, keys, repetition, and what errors mean."""

from __future__ import annotations

import os
import threading
import time
import warnings
from functools import partial
from types import ModuleType
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from langchain_memlayer.errors import ConfigurationError, MissingDependency, VectorStoreError, shown

Call = Literal["upsert", "delete", "fetch", "search_by_vector"]

_FIRST_PAUSE: Final = 0.5
_SHOWN: Final = 300


class VikingDBClient:
    """One collection and index of VikingDB; `VikingDBVectorStore` has the arguments' meaning.

    Attributes:
        host: The server's host, for messages.
    """

    def __init__(
        self,
        collection_name: str,
        index_name: str,
        project_name: str | None,
        *,
        client: Any,
        host: str | None,
        region: str | None,
        ak: str | SecretStr | None,
        sk: str | SecretStr | None,
        api_key: str | SecretStr | None,
        timeout: float,
        max_retries: int,
    ) -> None:
        if timeout <= 0 or max_retries < 0:
            raise ConfigurationError("timeout must be more than 0 seconds, and max_retries not negative.")
        self._sdk = _sdk()
        self._place = {"collection_name": collection_name, "project_name": project_name}
        self._index = index_name
        self._max_retries = max_retries
        self._timeout = timeout
        self._lock = threading.Lock()
        self._made: tuple[int, Any] | None = None
        self._given = client
        self._keys: tuple[SecretStr, ...] = ()
        if client is not None:
            if not isinstance(client, self._sdk.VikingDB):
                raise ConfigurationError(f"client must be a `vikingdb.VikingDB`, got {type(client).__name__}.")
            if (host, region, ak, sk, api_key) != (None,) * 5:
                raise ConfigurationError("Pass either a client, or a host with its keys.")
            self.host = str(client.service_info.host)
            self._keys = _keys_of(client)
            return
        self._keys = _keys(ak, sk, api_key)
        self._scheme, self.host = _address(host or os.environ.get("VIKINGDB_HOST"))
        self._region = region or os.environ.get("VIKINGDB_REGION") or ""
        if len(self._keys) == 2 and not self._region:
            raise ConfigurationError(
                "Signing with an AK/SK pair needs the region: pass `region`, such as 'cn-beijing', or set "
                "VIKINGDB_REGION."
            )

    def ask(self, call: Call, request: dict[str, Any]) -> Any:
        """The result of one request; None where the server has none to give.

        It is repeated while that may help. The SDK would also repeat what the server refuses, so its own repetition is
        off.

        Raises:
            VectorStoreError: there was no answer, or an error.
        """
        attempt = 0
        while True:
            try:
                return self._sent(call, request)
            except _Failure as failure:
                if not failure.passing or attempt >= self._max_retries:
                    detail = self._redacted(failure.detail)
                    # Servers name the key that they refuse; a traceback would show it.
                    cause = failure.__cause__ if detail == failure.detail else None
                    raise VectorStoreError(self._message(failure, detail[:_SHOWN])) from cause
            time.sleep(_FIRST_PAUSE * 2**attempt)
            attempt += 1

    def _sent(self, call: Call, request: dict[str, Any]) -> Any:
        sdk = self._sdk
        try:
            client = self._connected()
            if call == "search_by_vector":
                target = client.index(index_name=self._index, **self._place)
            else:
                target = client.collection(**self._place)
            response = getattr(target, call)(request, request_options=sdk.RequestOptions(max_attempts=1))
        except sdk.vector.exceptions.VikingConnectionException as error:
            raise _Failure(None, "", str(error.args[-1])) from error
        except sdk.exceptions.VikingException as error:
            raise _Failure(error.status_code, str(error.code), str(error)) from error
        except ValidationError as error:
            raise _Failure(200, "", "its answer has another form") from error
        if response.code != "Success":
            raise _Failure(200, str(response.code), f"code {response.code}: {response.message}")
        return response.result

    def _connected(self) -> Any:
        """The SDK's client, a new one after a fork: two processes cannot share connections."""
        if self._given is not None:
            return self._given
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = os.getpid(), self._connect()
            return self._made[1]

    def _connect(self) -> Any:
        sdk, timeout, keys = self._sdk, self._timeout, [key.get_secret_value() for key in self._keys]
        auth = sdk.APIKey(api_key=keys[0]) if len(keys) == 1 else sdk.IAM(ak=keys[0], sk=keys[1])

        class Client(sdk.VikingDB):  # type: ignore[misc, name-defined]
            # The constructor asks whether the server is there, and would wait for its answer forever.
            @staticmethod
            def _build_session(**pool: Any) -> Any:
                session = sdk.VikingDB._build_session(**pool)
                session.get = partial(session.get, timeout=timeout)
                return session

        return Client(host=self.host, region=self._region, auth=auth, scheme=self._scheme, timeout=timeout)

    def _redacted(self, text: str) -> str:
        for key in self._keys:
            text = text.replace(key.get_secret_value(), "***")
        return text

    def _message(self, failure: _Failure, detail: str) -> str:
        status, place = failure.status, f"the collection {self._place['collection_name']!r}"
        if status is None:
            said, advice = "gave no answer", "Check the host and the network, and try again."
        elif status in (401, 403):
            said = "refused the keys"
            advice = "Check VIKINGDB_AK and VIKINGDB_SK, or VIKINGDB_API_KEY, the region, and what the account may do."
        elif status == 404 or failure.code.startswith("NotFound"):
            said = f"has not {place} with the index {self._index!r}"
            advice = "Make both in VikingDB's console; `help(langchain_memlayer.vikingdb.store)` lists their fields."
        elif status == 429:
            said, advice = "takes no more requests for now", "Try again later, or ask for a higher quota."
        elif 400 <= status < 500:
            said = f"refused a request for {place}"
            advice = "Compare its fields, its vectors' size and its scalar indexes with what the answer names."
        elif status == 200:
            said, advice = "did not answer as VikingDB does", "Check the host, and proxies on the way to it."
        else:
            said, advice = "failed", "Try again later."
        return f"VikingDB at {self.host} {said} ({detail.rstrip('.')}). {advice}"


class _Failure(Exception):  # never leaves this module
    """What one request met; `status` is the HTTP status, or None without an answer."""

    def __init__(self, status: int | None, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.passing = status is None or status == 429 or status >= 500


def _sdk() -> ModuleType:
    try:
        with warnings.catch_warnings():
            # One of the SDK's models has a field named `schema`, of which pydantic warns.
            warnings.simplefilter("ignore", UserWarning)
            import vikingdb
            import vikingdb.vector.exceptions
    except ImportError as error:
        raise MissingDependency(
            'VikingDB needs its SDK: install it with `pip install "langchain-memlayer[vikingdb]"`.'
        ) from error
    return vikingdb  # type: ignore[no-any-return]


def _address(host: str | None) -> tuple[str, str]:
    """The scheme and the host, with its port, of an address."""
    if not host:
        raise ConfigurationError(
            "VikingDB needs a host: pass `host`, such as 'api-vikingdb.vikingdb.cn-beijing.volces.com', or set "
            "VIKINGDB_HOST."
        )
    parts = urlsplit(host if "://" in host else f"https://{host}")
    if "@" in parts.netloc:
        raise ConfigurationError("The host must hold no user or password: pass keys as `ak` and `sk`, or `api_key`.")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query:
        raise ConfigurationError(f"{shown(host)} is no host: write it as 'name', 'name:port' or 'https://name'.")
    return parts.scheme, parts.netloc


def _keys(
    ak: str | SecretStr | None, sk: str | SecretStr | None, api_key: str | SecretStr | None
) -> tuple[SecretStr, ...]:
    """An API key alone, or an access key id with its secret; arguments come before the environment."""
    if api_key is not None and (ak is not None or sk is not None):
        raise ConfigurationError("Pass either `api_key`, or `ak` and `sk`.")
    if ak is None and sk is None:
        key = _secret(api_key, "VIKINGDB_API_KEY")
        if key is not None:
            return (key,)
    pair = _secret(ak, "VIKINGDB_AK"), _secret(sk, "VIKINGDB_SK")
    if pair[0] is None or pair[1] is None:
        raise ConfigurationError(
            "VikingDB needs keys: pass `ak` and `sk`, or `api_key`, or set VIKINGDB_AK and VIKINGDB_SK, or "
            "VIKINGDB_API_KEY."
        )
    return pair[0], pair[1]


def _keys_of(client: Any) -> tuple[SecretStr, ...]:
    """The keys of a caller's own client, so that no message shows them."""
    keys = (getattr(client.auth_provider, name, None) for name in ("api_key", "_ak", "_sk"))
    return tuple(SecretStr(key) for key in keys if key)


def _secret(value: str | SecretStr | None, variable: str) -> SecretStr | None:
    if value is None:
        value = os.environ.get(variable)
    text = value.get_secret_value() if isinstance(value, SecretStr) else value or ""
    if not isinstance(text, str):
        raise ConfigurationError(f"The key for {variable} must be a text, got {type(text).__name__}.")
    text = text.strip()
    # A header takes nothing else, and the error of the HTTP library would show the key.
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(f"The key for {variable} holds characters that no key has; copy it again.")
    return SecretStr(text) if text else None
