import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LoadBundleRequest(_message.Message):
    __slots__ = ("bundle_version",)
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    bundle_version: str
    def __init__(self, bundle_version: _Optional[str] = ...) -> None: ...

class LoadBundleResponse(_message.Message):
    __slots__ = ("bundle_version", "previous_bundle_version")
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    bundle_version: str
    previous_bundle_version: str
    def __init__(self, bundle_version: _Optional[str] = ..., previous_bundle_version: _Optional[str] = ...) -> None: ...

class RollbackBundleRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RollbackBundleResponse(_message.Message):
    __slots__ = ("bundle_version", "previous_bundle_version")
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    bundle_version: str
    previous_bundle_version: str
    def __init__(self, bundle_version: _Optional[str] = ..., previous_bundle_version: _Optional[str] = ...) -> None: ...

class DescribeServingRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeServingResponse(_message.Message):
    __slots__ = ("server_version", "bundle_version", "previous_bundle_version", "bundle_create_time", "bundle_metrics", "user_count", "item_count", "catalog_revision", "uptime", "ready_worker_count", "worker_count", "respawn_count", "last_swap_error", "settings", "store_available")
    class BundleMetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_METRICS_FIELD_NUMBER: _ClassVar[int]
    USER_COUNT_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    CATALOG_REVISION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    READY_WORKER_COUNT_FIELD_NUMBER: _ClassVar[int]
    WORKER_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESPAWN_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_SWAP_ERROR_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    STORE_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    bundle_version: str
    previous_bundle_version: str
    bundle_create_time: _timestamp_pb2.Timestamp
    bundle_metrics: _containers.ScalarMap[str, float]
    user_count: int
    item_count: int
    catalog_revision: int
    uptime: _duration_pb2.Duration
    ready_worker_count: int
    worker_count: int
    respawn_count: int
    last_swap_error: str
    settings: _containers.ScalarMap[str, str]
    store_available: bool
    def __init__(self, server_version: _Optional[str] = ..., bundle_version: _Optional[str] = ..., previous_bundle_version: _Optional[str] = ..., bundle_create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., bundle_metrics: _Optional[_Mapping[str, float]] = ..., user_count: _Optional[int] = ..., item_count: _Optional[int] = ..., catalog_revision: _Optional[int] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ready_worker_count: _Optional[int] = ..., worker_count: _Optional[int] = ..., respawn_count: _Optional[int] = ..., last_swap_error: _Optional[str] = ..., settings: _Optional[_Mapping[str, str]] = ..., store_available: _Optional[bool] = ...) -> None: ...
