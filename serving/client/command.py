"""The command line of `python -m serving.client`, and the arguments that it shares with the client's other commands."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import grpc

from reckg.v1 import recommender_pb2 as pb
from serving.client.client import RecommenderClient


def format_response(response: pb.RecommendResponse) -> str:
    """Formats a response for people: rank, score, item id and title of each item, and notes."""
    lines = [f"{rank:3d}  {i.score:8.4f}  {i.item_id}  {i.title}" for rank, i in enumerate(response.items, start=1)]
    if response.fallback == pb.FALLBACK_POPULAR:
        lines.append("(the most popular items: the bundle does not know this user)")
    reasons = [pb.DegradedReason.Name(reason) for reason in response.degraded_reasons]
    lines += [f"(degraded: {', '.join(reasons)})"] if reasons else []
    unknown = [*response.unknown_recent_item_ids, *response.unknown_attributes]
    lines += [f"(unknown: {', '.join(unknown)})"] if unknown else []
    return "\n".join([*lines, f"(bundle {response.bundle_version})"])


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments for TLS. The token comes from the variable RECKG_TOKEN, never from an argument."""
    parser.add_argument("--ca", type=Path, metavar="PEM", help="authority of the server's certificate; turns TLS on")
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="of this client, if the server asks for one")
    parser.add_argument("--key", type=Path, metavar="PEM", help="private key of the certificate")


def connection(options: argparse.Namespace) -> dict[str, Any]:
    """Reads the keyword arguments of RecommenderClient from the command line and the environment.

    Args:
        options: parsed by a parser with `add_connection_arguments`.
    """
    files = {name: getattr(options, name) for name in ("ca", "certificate", "key")}
    contents = {name: None if path is None else path.read_bytes() for name, path in files.items()}
    return {**contents, "token": os.environ.get("RECKG_TOKEN", "")}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Recommend items to one user.")
    parser.add_argument("address", help="host:port, as the server prints it")
    parser.add_argument("user_id", nargs="?", default="", help="may be left out with --recent")
    parser.add_argument("--recent", nargs="+", default=[], metavar="ITEM_ID", help="latest items, oldest first")
    parser.add_argument("--k", type=int, default=10, help="number of items (default: %(default)s)")
    add_connection_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        with RecommenderClient(options.address, timeout_s=10.0, **connection(options)) as client:
            print(format_response(client.recommend(options.user_id, options.k, recent_items=options.recent)))
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0
