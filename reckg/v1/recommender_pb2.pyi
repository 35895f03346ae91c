from reckg.v1 import item_pb2 as _item_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DiversityStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIVERSITY_STRATEGY_UNSPECIFIED: _ClassVar[DiversityStrategy]
    DIVERSITY_STRATEGY_NONE: _ClassVar[DiversityStrategy]
    DIVERSITY_STRATEGY_MMR: _ClassVar[DiversityStrategy]
    DIVERSITY_STRATEGY_CALIBRATED: _ClassVar[DiversityStrategy]
    DIVERSITY_STRATEGY_PROVIDER: _ClassVar[DiversityStrategy]

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_EVENTS: _ClassVar[Stage]
    STAGE_FOLD_IN: _ClassVar[Stage]
    STAGE_RETRIEVE: _ClassVar[Stage]
    STAGE_FEATURES: _ClassVar[Stage]
    STAGE_RERANK: _ClassVar[Stage]
    STAGE_DIVERSIFY: _ClassVar[Stage]
    STAGE_POPULAR: _ClassVar[Stage]

class MissingCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MISSING_CAUSE_UNSPECIFIED: _ClassVar[MissingCause]
    MISSING_CAUSE_ABSENT: _ClassVar[MissingCause]
    MISSING_CAUSE_UNKNOWN_USER: _ClassVar[MissingCause]
    MISSING_CAUSE_TOO_OLD: _ClassVar[MissingCause]

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
    DEGRADED_REASON_NO_EVENTS: _ClassVar[DegradedReason]
    DEGRADED_REASON_STALE_CATALOG: _ClassVar[DegradedReason]
DIVERSITY_STRATEGY_UNSPECIFIED: DiversityStrategy
DIVERSITY_STRATEGY_NONE: DiversityStrategy
DIVERSITY_STRATEGY_MMR: DiversityStrategy
DIVERSITY_STRATEGY_CALIBRATED: DiversityStrategy
DIVERSITY_STRATEGY_PROVIDER: DiversityStrategy
STAGE_UNSPECIFIED: Stage
STAGE_EVENTS: Stage
STAGE_FOLD_IN: Stage
STAGE_RETRIEVE: Stage
STAGE_FEATURES: Stage
STAGE_RERANK: Stage
STAGE_DIVERSIFY: Stage
STAGE_POPULAR: Stage
MISSING_CAUSE_UNSPECIFIED: MissingCause
MISSING_CAUSE_ABSENT: MissingCause
MISSING_CAUSE_UNKNOWN_USER: MissingCause
MISSING_CAUSE_TOO_OLD: MissingCause
FALLBACK_UNSPECIFIED: Fallback
FALLBACK_NONE: Fallback
FALLBACK_POPULAR: Fallback
DEGRADED_REASON_UNSPECIFIED: DegradedReason
DEGRADED_REASON_COLD_USER: DegradedReason
DEGRADED_REASON_NO_RERANK: DegradedReason
DEGRADED_REASON_UNKNOWN_RECENT_ITEMS: DegradedReason
DEGRADED_REASON_UNKNOWN_ATTRIBUTES: DegradedReason
DEGRADED_REASON_NO_EVENTS: DegradedReason
DEGRADED_REASON_STALE_CATALOG: DegradedReason

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "max_item_count", "include_seen", "recent_item_ids", "attributes", "filter", "diversity", "context", "include_feature_values", "include_source_scores", "request_id", "exclude_seen")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    RECENT_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FEATURE_VALUES_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SOURCE_SCORES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    max_item_count: int
    include_seen: bool
    recent_item_ids: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.RepeatedCompositeFieldContainer[UserAttribute]
    filter: ItemFilter
    diversity: Diversity
    context: Context
    include_feature_values: bool
    include_source_scores: bool
    request_id: str
    exclude_seen: bool
    def __init__(self, user_id: _Optional[str] = ..., max_item_count: _Optional[int] = ..., include_seen: _Optional[bool] = ..., recent_item_ids: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Iterable[_Union[UserAttribute, _Mapping]]] = ..., filter: _Optional[_Union[ItemFilter, _Mapping]] = ..., diversity: _Optional[_Union[Diversity, _Mapping]] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., include_feature_values: _Optional[bool] = ..., include_source_scores: _Optional[bool] = ..., request_id: _Optional[str] = ..., exclude_seen: _Optional[bool] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("item_ids", "placement")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    placement: str
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., placement: _Optional[str] = ...) -> None: ...

class ItemFilter(_message.Message):
    __slots__ = ("allowed_items", "denied_item_ids", "predicates")
    ALLOWED_ITEMS_FIELD_NUMBER: _ClassVar[int]
    DENIED_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    PREDICATES_FIELD_NUMBER: _ClassVar[int]
    allowed_items: ItemIdList
    denied_item_ids: _containers.RepeatedScalarFieldContainer[str]
    predicates: _containers.RepeatedCompositeFieldContainer[AttributePredicate]
    def __init__(self, allowed_items: _Optional[_Union[ItemIdList, _Mapping]] = ..., denied_item_ids: _Optional[_Iterable[str]] = ..., predicates: _Optional[_Iterable[_Union[AttributePredicate, _Mapping]]] = ...) -> None: ...

class ItemIdList(_message.Message):
    __slots__ = ("item_ids",)
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class AttributePredicate(_message.Message):
    __slots__ = ("column", "values", "numbers", "range")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    column: str
    values: _containers.RepeatedScalarFieldContainer[str]
    numbers: _containers.RepeatedScalarFieldContainer[float]
    range: NumberRange
    def __init__(self, column: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ..., numbers: _Optional[_Iterable[float]] = ..., range: _Optional[_Union[NumberRange, _Mapping]] = ...) -> None: ...

class NumberRange(_message.Message):
    __slots__ = ("at_least", "at_most", "above", "below")
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_FIELD_NUMBER: _ClassVar[int]
    ABOVE_FIELD_NUMBER: _ClassVar[int]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    at_least: float
    at_most: float
    above: float
    below: float
    def __init__(self, at_least: _Optional[float] = ..., at_most: _Optional[float] = ..., above: _Optional[float] = ..., below: _Optional[float] = ...) -> None: ...

class Diversity(_message.Message):
    __slots__ = ("strategy", "weight", "column", "provider_column", "max_per_provider")
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_COLUMN_FIELD_NUMBER: _ClassVar[int]
    MAX_PER_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    strategy: DiversityStrategy
    weight: float
    column: str
    provider_column: str
    max_per_provider: int
    def __init__(self, strategy: _Optional[_Union[DiversityStrategy, str]] = ..., weight: _Optional[float] = ..., column: _Optional[str] = ..., provider_column: _Optional[str] = ..., max_per_provider: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("items", "bundle_version", "fallback", "degraded_reasons", "unknown_recent_item_ids", "unknown_attributes", "request_id", "stages", "variant", "catalog_revision", "unknown_context_item_ids")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_REASONS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_RECENT_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    CATALOG_REVISION_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_CONTEXT_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoredItem]
    bundle_version: str
    fallback: Fallback
    degraded_reasons: _containers.RepeatedScalarFieldContainer[DegradedReason]
    unknown_recent_item_ids: _containers.RepeatedScalarFieldContainer[str]
    unknown_attributes: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    stages: _containers.RepeatedScalarFieldContainer[Stage]
    variant: str
    catalog_revision: int
    unknown_context_item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, items: _Optional[_Iterable[_Union[ScoredItem, _Mapping]]] = ..., bundle_version: _Optional[str] = ..., fallback: _Optional[_Union[Fallback, str]] = ..., degraded_reasons: _Optional[_Iterable[_Union[DegradedReason, str]]] = ..., unknown_recent_item_ids: _Optional[_Iterable[str]] = ..., unknown_attributes: _Optional[_Iterable[str]] = ..., request_id: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[Stage, str]]] = ..., variant: _Optional[str] = ..., catalog_revision: _Optional[int] = ..., unknown_context_item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchRecommendRequest(_message.Message):
    __slots__ = ("user_ids", "max_item_count", "include_seen", "filter", "diversity", "request_id", "exclude_seen")
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    max_item_count: int
    include_seen: bool
    filter: ItemFilter
    diversity: Diversity
    request_id: str
    exclude_seen: bool
    def __init__(self, user_ids: _Optional[_Iterable[str]] = ..., max_item_count: _Optional[int] = ..., include_seen: _Optional[bool] = ..., filter: _Optional[_Union[ItemFilter, _Mapping]] = ..., diversity: _Optional[_Union[Diversity, _Mapping]] = ..., request_id: _Optional[str] = ..., exclude_seen: _Optional[bool] = ...) -> None: ...

class BatchRecommendResponse(_message.Message):
    __slots__ = ("user_id", "recommendations")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDATIONS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    recommendations: RecommendResponse
    def __init__(self, user_id: _Optional[str] = ..., recommendations: _Optional[_Union[RecommendResponse, _Mapping]] = ...) -> None: ...

class SimilarItemsRequest(_message.Message):
    __slots__ = ("item_id", "max_item_count", "filter")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    max_item_count: int
    filter: ItemFilter
    def __init__(self, item_id: _Optional[str] = ..., max_item_count: _Optional[int] = ..., filter: _Optional[_Union[ItemFilter, _Mapping]] = ...) -> None: ...

class SimilarItemsResponse(_message.Message):
    __slots__ = ("items", "bundle_version", "catalog_revision")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CATALOG_REVISION_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoredItem]
    bundle_version: str
    catalog_revision: int
    def __init__(self, items: _Optional[_Iterable[_Union[ScoredItem, _Mapping]]] = ..., bundle_version: _Optional[str] = ..., catalog_revision: _Optional[int] = ...) -> None: ...

class RankItemsRequest(_message.Message):
    __slots__ = ("user_id", "item_ids", "recent_item_ids", "attributes", "context", "include_feature_values", "request_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    RECENT_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FEATURE_VALUES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    recent_item_ids: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.RepeatedCompositeFieldContainer[UserAttribute]
    context: Context
    include_feature_values: bool
    request_id: str
    def __init__(self, user_id: _Optional[str] = ..., item_ids: _Optional[_Iterable[str]] = ..., recent_item_ids: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Iterable[_Union[UserAttribute, _Mapping]]] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., include_feature_values: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class RankItemsResponse(_message.Message):
    __slots__ = ("items", "unknown_item_ids", "bundle_version", "fallback", "degraded_reasons", "unknown_recent_item_ids", "unknown_attributes", "request_id", "stages", "catalog_revision", "unknown_context_item_ids")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_REASONS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_RECENT_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    CATALOG_REVISION_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_CONTEXT_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoredItem]
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    bundle_version: str
    fallback: Fallback
    degraded_reasons: _containers.RepeatedScalarFieldContainer[DegradedReason]
    unknown_recent_item_ids: _containers.RepeatedScalarFieldContainer[str]
    unknown_attributes: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    stages: _containers.RepeatedScalarFieldContainer[Stage]
    catalog_revision: int
    unknown_context_item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, items: _Optional[_Iterable[_Union[ScoredItem, _Mapping]]] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ..., bundle_version: _Optional[str] = ..., fallback: _Optional[_Union[Fallback, str]] = ..., degraded_reasons: _Optional[_Iterable[_Union[DegradedReason, str]]] = ..., unknown_recent_item_ids: _Optional[_Iterable[str]] = ..., unknown_attributes: _Optional[_Iterable[str]] = ..., request_id: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[Stage, str]]] = ..., catalog_revision: _Optional[int] = ..., unknown_context_item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetItemRequest(_message.Message):
    __slots__ = ("item_id",)
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    def __init__(self, item_id: _Optional[str] = ...) -> None: ...

class GetItemResponse(_message.Message):
    __slots__ = ("item", "title", "available", "added", "bundle_version", "catalog_revision")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CATALOG_REVISION_FIELD_NUMBER: _ClassVar[int]
    item: _item_pb2.Item
    title: str
    available: bool
    added: bool
    bundle_version: str
    catalog_revision: int
    def __init__(self, item: _Optional[_Union[_item_pb2.Item, _Mapping]] = ..., title: _Optional[str] = ..., available: _Optional[bool] = ..., added: _Optional[bool] = ..., bundle_version: _Optional[str] = ..., catalog_revision: _Optional[int] = ...) -> None: ...

class ScoredItem(_message.Message):
    __slots__ = ("item_id", "title", "score", "feature_values", "source_scores", "variant")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    FEATURE_VALUES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SCORES_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    score: float
    feature_values: _containers.RepeatedCompositeFieldContainer[FeatureValue]
    source_scores: _containers.RepeatedCompositeFieldContainer[SourceScore]
    variant: str
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., score: _Optional[float] = ..., feature_values: _Optional[_Iterable[_Union[FeatureValue, _Mapping]]] = ..., source_scores: _Optional[_Iterable[_Union[SourceScore, _Mapping]]] = ..., variant: _Optional[str] = ...) -> None: ...

class FeatureValue(_message.Message):
    __slots__ = ("name", "value", "missing_cause")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MISSING_CAUSE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    missing_cause: MissingCause
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., missing_cause: _Optional[_Union[MissingCause, str]] = ...) -> None: ...

class SourceScore(_message.Message):
    __slots__ = ("source", "score", "rank")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    source: str
    score: float
    rank: int
    def __init__(self, source: _Optional[str] = ..., score: _Optional[float] = ..., rank: _Optional[int] = ...) -> None: ...
