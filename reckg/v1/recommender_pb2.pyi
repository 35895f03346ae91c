from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Fallback(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FALLBACK_UNSPECIFIED: _ClassVar[Fallback]
    FALLBACK_NONE: _ClassVar[Fallback]
    FALLBACK_POPULAR: _ClassVar[Fallback]

class DegradedReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEGRADED_REASON_UNSPECIFIED: _ClassVar[DegradedReason]
    DEGRADED_REASON_COLD_USER: _ClassVar[DegradedReason]
    DEGRADED_REASON_NO_RERANK: _ClassVar[DegradedReason]
    DEGRADED_REASON_UNKNOWN_RECENT_ITEMS: _ClassVar[DegradedReason]
    DEGRADED_REASON_UNKNOWN_ATTRIBUTES: _ClassVar[DegradedReason]
FALLBACK_UNSPECIFIED: Fallback
FALLBACK_NONE: Fallback
FALLBACK_POPULAR: Fallback
DEGRADED_REASON_UNSPECIFIED: DegradedReason
DEGRADED_REASON_COLD_USER: DegradedReason
DEGRADED_REASON_NO_RERANK: DegradedReason
DEGRADED_REASON_UNKNOWN_RECENT_ITEMS: DegradedReason
DEGRADED_REASON_UNKNOWN_ATTRIBUTES: DegradedReason

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "max_item_count", "include_seen", "recent_item_ids", "attributes")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    RECENT_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    max_item_count: int
    include_seen: bool
    recent_item_ids: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.RepeatedCompositeFieldContainer[UserAttribute]
    def __init__(self, user_id: _Optional[str] = ..., max_item_count: _Optional[int] = ..., include_seen: _Optional[bool] = ..., recent_item_ids: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Iterable[_Union[UserAttribute, _Mapping]]] = ...) -> None: ...

class UserAttribute(_message.Message):
    __slots__ = ("name", "values", "numbers")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedScalarFieldContainer[str]
    numbers: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ..., numbers: _Optional[_Iterable[float]] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("items", "bundle_version", "fallback", "degraded_reasons", "unknown_recent_item_ids", "unknown_attributes")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_REASONS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_RECENT_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoredItem]
    bundle_version: str
    fallback: Fallback
    degraded_reasons: _containers.RepeatedScalarFieldContainer[DegradedReason]
    unknown_recent_item_ids: _containers.RepeatedScalarFieldContainer[str]
    unknown_attributes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, items: _Optional[_Iterable[_Union[ScoredItem, _Mapping]]] = ..., bundle_version: _Optional[str] = ..., fallback: _Optional[_Union[Fallback, str]] = ..., degraded_reasons: _Optional[_Iterable[_Union[DegradedReason, str]]] = ..., unknown_recent_item_ids: _Optional[_Iterable[str]] = ..., unknown_attributes: _Optional[_Iterable[str]] = ...) -> None: ...

class SimilarItemsRequest(_message.Message):
    __slots__ = ("item_id", "max_item_count")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    max_item_count: int
    def __init__(self, item_id: _Optional[str] = ..., max_item_count: _Optional[int] = ...) -> None: ...

class SimilarItemsResponse(_message.Message):
    __slots__ = ("items", "bundle_version")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoredItem]
    bundle_version: str
    def __init__(self, items: _Optional[_Iterable[_Union[ScoredItem, _Mapping]]] = ..., bundle_version: _Optional[str] = ...) -> None: ...

class ScoredItem(_message.Message):
    __slots__ = ("item_id", "title", "score")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    score: float
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...
