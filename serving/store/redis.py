"""The state store of several machines: one Redis server, or a group that Sentinel watches.

Every change is one script, which Redis runs whole or not at all. Redis keeps acknowledged writes only with
``appendonly yes`` and ``appendfsync always``. ``warnings`` lists other settings.

Keys, after the namespace:

- ``user:<user id>``: sorted set of events by time. A member is a number that rises with every event, the second of
  storing, and JSON.
- ``event:<event id>``: the second of storing.
- ``catalog``: hash of changes.
- ``catalog:revisions``: sorted set of the changes' fields by revision.
- ``revision`` and ``seq``: counters.
- ``embedded:<bundle version>``: hash of embedded items.

Redis Cluster does not suit, because a script touches keys of many slots.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel

from reckg.errors import ConfigError
from reckg.live.changes import CatalogChange, EmbeddedItem
from serving.settings import StoreSettings
from serving.store import StoredEvent, StoreDownError, StoreError

SENTINEL = "redis+sentinel"
SCHEMES = ("redis", "rediss", "unix", SENTINEL)
# A member of a user's set: 16 digits of seq, 12 digits of the second of storing, JSON with the event id first.
TRIM = """
local function trim(user, cutoff, per_user)
    local key, kept = ns .. 'user:' .. user, {}
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
        if tonumber(string.sub(member, 17, 28)) < cutoff then
            redis.call('ZREM', key, member)
        else
            kept[#kept + 1] = member
        end
    end
    for number = 1, #kept - per_user do
        redis.call('ZREM', key, kept[number])
        redis.call('DEL', ns .. 'event:' .. cjson.decode(string.sub(kept[number], 29))[1])
    end
end
"""
RECORD = f"""
local ns, now, cutoff, per_user, ttl = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
{TRIM}
local new, users = {{}}, {{}}
for at = 5, #ARGV, 4 do
    local id, user, time, payload = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    local stored = tonumber(redis.call('GET', ns .. 'event:' .. id) or '-1')
    local is_new = stored < cutoff
    if is_new then
        local seq = redis.call('INCR', ns .. 'seq')
        redis.call('SET', ns .. 'event:' .. id, now, 'EX', ttl)
        redis.call('ZADD', ns .. 'user:' .. user, time, string.format('%016d%012d', seq, now) .. payload)
        users[user] = true
    end
    new[#new + 1] = is_new and 1 or 0
end
for user in pairs(users) do
    if redis.call('ZCARD', ns .. 'user:' .. user) > per_user then
        trim(user, cutoff, per_user)
    end
    redis.call('EXPIRE', ns .. 'user:' .. user, ttl)
end
return new
"""
TRIM_USERS = f"""
local ns, cutoff, per_user = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
{TRIM}
for at = 3, #ARGV do
    trim(ARGV[at], cutoff, per_user)
end
"""
# One text with a line for each event, because redis-py takes 30 us for each part of an answer.
OF_USER = "return table.concat(redis.call('ZRANGE', KEYS[1], 0, -1), '\\n')"
CHANGE = """
local ns = KEYS[1]
local revision = redis.call('INCR', ns .. 'revision')
for at = 1, #ARGV, 2 do
    redis.call('HSET', ns .. 'catalog', ARGV[at], revision .. ' ' .. ARGV[at + 1])
    redis.call('ZADD', ns .. 'catalog:revisions', revision, ARGV[at])
end
return revision
"""
PUT_EMBEDDED = """
for at = 1, #ARGV, 3 do
    local held = redis.call('HGET', KEYS[1], ARGV[at])
    if not held or tonumber(string.match(held, '^%d+')) <= tonumber(ARGV[at + 1]) then
        redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1] .. ' ' .. ARGV[at + 2])
    end
end
"""
AT_ONCE = 100  # users trimmed by one script of a compaction
FIELDS_AT_ONCE = 1000  # fields of a hash read by one command


class RedisStore:
    """A serving.store.StateStore in Redis. It connects when first needed, and again after a lost connection.

    Args:
        url: redis://, rediss://, unix:// as redis-py takes them, or
            redis+sentinel://[user:password@]host:port,host:port/name of the group[/database].
        settings: the section ``store`` of the settings.
        clock: epoch seconds.

    Raises:
        ConfigError: the URL is of another form. The message does not show it, because it may hold a password.
    """

    def __init__(self, url: str, settings: StoreSettings, clock: Callable[[], float] = time.time) -> None:
        self._prefix, self._clock = f"{settings.namespace}:", clock
        self._kept_s, self._per_user = settings.event_days * 86_400, settings.events_per_user
        self._reader, self._writer = connect(url, settings.timeout_ms), connect(url, settings.write_timeout_ms)
        self._of_user = self._reader.register_script(OF_USER)
        self._record, self._trim, self._change, self._put = (
            self._writer.register_script(text) for text in (RECORD, TRIM_USERS, CHANGE, PUT_EMBEDDED)
        )

    def record_events(self, events: Sequence[StoredEvent]) -> list[bool]:
        if not events:
            return []
        now = int(self._clock())
        arguments: list[Any] = [now, int(now - self._kept_s), self._per_user, max(1, int(self._kept_s))]
        for event in events:
            payload = [event.event_id, event.item_id, event.time, event.weight, event.type, event.request_id]
            arguments += [event.event_id, event.user_id, event.time, _to_json(payload)]
        with translate_errors():
            return [bool(new) for new in self._record(keys=[self._prefix], args=arguments)]

    def user_events(self, user_id: str) -> list[StoredEvent]:
        cutoff = int(int(self._clock()) - self._kept_s)
        with translate_errors():
            lines = self._of_user(keys=[f"{self._prefix}user:{user_id}"]).splitlines()
        rows = [line[28:] for line in lines if int(line[16:28]) >= cutoff][-self._per_user :]
        return [StoredEvent(row[0], user_id, *row[1:]) for row in json.loads(b"[%b]" % b",".join(rows))]

    def change_catalog(self, changes: Sequence[CatalogChange]) -> int:
        if not changes:
            return self.catalog_revision()
        arguments = []
        for change in changes:
            item = None if change.item is None else dict(change.item)
            arguments += [_field(change), _to_json([change.kind, item])]
        with translate_errors():
            return int(self._change(keys=[self._prefix], args=arguments))

    def catalog_revision(self) -> int:
        with translate_errors():
            return int(self._reader.get(f"{self._prefix}revision") or 0)

    def catalog_changes(self, after: int = 0) -> list[CatalogChange]:
        latest = self.catalog_revision()
        names = self._prefix + "catalog"
        with translate_errors():
            fields = self._reader.zrangebyscore(f"{names}:revisions", after + 1, latest)
            values: list[bytes | None] = []
            for start in range(0, len(fields), FIELDS_AT_ONCE):
                values += self._reader.hmget(names, fields[start : start + FIELDS_AT_ONCE])
        found = []
        for field, value in zip(fields, values, strict=True):
            revision, content = (value or b"0 ").split(b" ", 1)
            if 0 < int(revision) <= latest:  # a change made meanwhile comes with the next call
                kind, item = json.loads(content)
                place = field[:1], CatalogChange(field[1:].decode(), kind, item, int(revision))
                found.append(place)
        found.sort(key=lambda place: (place[1].revision, place[1].item_id, place[0]))
        return [change for _, change in found]

    def put_embedded(self, bundle_version: str, items: Sequence[EmbeddedItem]) -> None:
        arguments = [part for item in items for part in (item.item_id, item.revision, item.data)]
        with translate_errors():
            self._put(keys=[f"{self._prefix}embedded:{bundle_version}"], args=arguments)

    def embedded(self, bundle_version: str, item_ids: Sequence[str]) -> list[EmbeddedItem]:
        found = []
        for start in range(0, len(item_ids), FIELDS_AT_ONCE):
            part = list(item_ids[start : start + FIELDS_AT_ONCE])
            with translate_errors():
                values = self._reader.hmget(f"{self._prefix}embedded:{bundle_version}", part)
            for item_id, value in zip(part, values, strict=True):
                if value is not None:
                    revision, data = value.split(b" ", 1)
                    found.append(EmbeddedItem(item_id, int(revision), data))
        return found

    def compact(self, now: int, keep_bundles: Sequence[str]) -> None:
        kept = {f"{self._prefix}embedded:{version}".encode() for version in keep_bundles}
        with translate_errors():
            old = [key for key in self._writer.scan_iter(f"{self._prefix}embedded:*") if key not in kept]
            if old:
                self._writer.unlink(*old)
            # Redis drops old events itself, and RECORD trims the events of users above their number. This applies a
            # lowered number to all users.
            trimmed = f"{self._prefix}events_per_user"
            if int(self._writer.get(trimmed) or 0) == self._per_user:
                return
            users, start = [], len(f"{self._prefix}user:")
            for key in self._writer.scan_iter(f"{self._prefix}user:*", count=AT_ONCE):
                users.append(key[start:])
                if len(users) == AT_ONCE:
                    self._trim_users(now, users)
                    users = []
            self._trim_users(now, users)
            self._writer.set(trimmed, self._per_user)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def warnings(self) -> list[str]:
        """Lists the settings of Redis with which it can lose acknowledged writes.

        Raises:
            StoreError: Redis does not answer.
        """
        wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        found: dict[str, str | None] = dict.fromkeys(wanted)
        with translate_errors():
            try:
                for name in wanted:
                    found[name] = self._writer.config_get(name).get(name)
            except ResponseError:  # hosted servers refuse CONFIG
                info = self._writer.info()
                found["appendonly"] = "yes" if info.get("aof_enabled") else "no"
                found["maxmemory-policy"] = info.get("maxmemory_policy")
        return [
            f"{name} is {'not known' if found[name] is None else found[name]}, should be {value}"
            for name, value in wanted.items()
            if found[name] != value
        ]

    def _trim_users(self, now: int, users: list[bytes]) -> None:
        if users:
            self._trim(keys=[self._prefix], args=[int(now - self._kept_s), self._per_user, *users])


def connect(url: str, timeout_ms: float) -> Any:  # redis-py's types mix in the asynchronous client's results
    """Makes a Redis client that sends no command twice.

    Args:
        url: as of RedisStore.
        timeout_ms: limit of the connection and of the answer. A call that connects first may take twice as long.

    Raises:
        ConfigError: the URL is of another form.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": timeout_ms / 1000,
        "retry": Retry(NoBackoff(), 0),
    }
    try:
        parts = urlsplit(url.strip())
        if parts.scheme not in SCHEMES:
            raise ValueError("scheme")
        if parts.scheme != SENTINEL:
            return redis.Redis.from_url(url.strip(), **options)
        hosts = [host.rpartition(":") for host in parts.netloc.rpartition("@")[2].split(",")]
        service, _, database = parts.path.strip("/").partition("/")
        if not service:
            raise ValueError("name")
        places = [(host, int(port)) for host, _, port in hosts]
        secret = {"username": _decode(parts.username), "password": _decode(parts.password)}
        return Sentinel(places, sentinel_kwargs=options, **options, **secret).master_for(service, db=int(database or 0))
    except ValueError:
        raise ConfigError(
            "the Redis URL must be redis://, rediss:// or unix://, or "
            "redis+sentinel://[user:password@]host:port[,host:port]/name[/database]; it is not shown here."
        ) from None


def _decode(part: str | None) -> str | None:
    return None if part is None else unquote(part)


def _to_json(value: list[Any]) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _field(change: CatalogChange) -> str:
    """Returns the change's field. An item has two fields: one for its content, one for its availability."""
    return ("0" if change.kind in ("upsert", "remove") else "1") + change.item_id


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turns redis-py's errors into StoreErrors without the data of the command."""
    try:
        yield
    except ReadOnlyError as error:
        raise StoreDownError("the state store is a replica that takes no changes") from error
    except ResponseError as error:
        word = str(error).split(" ", 1)[0]
        word = word if word.isupper() else type(error).__name__  # as OOM
        raise StoreError(f"the state store refused a command: {word}") from error
    except (RedisError, OSError) as error:
        raise StoreDownError(f"the state store does not answer ({type(error).__name__})") from error
