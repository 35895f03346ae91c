"""The command `reckg`: arguments in, one call of a job, errors as one line with exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from reckg.errors import ReckgError

Command = Callable[[argparse.Namespace], None]

TOKEN_SCOPES = ("recommend", "events", "catalog", "admin")
FORMATS = ("recbole", "kgat", "kgcn", "movielens", "sequences", "tables")
STAGE_COMMANDS = {
    "build-graph": "clean the data, split it, build the knowledge graph",
    "train": "train the graph model and the text encoder",
    "embed": "write the vectors of users and items",
    "folds": "train models that have not seen a part of the training interactions, for more labels",
    "index": "index the items for retrieval",
    "rank": "train the ranker and judge it against the retrieval order",
    "bundle": "put together the folder that is served",
    "evaluate": "compare with the baselines on the test part, write the report",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0, 2 for an error that reckg explains, 130 after Ctrl-C."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve each other on a busy machine
    options = build_parser().parse_args(arguments)
    command: Command = options.command
    try:
        command(options)
    except ReckgError as error:
        return _fail(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        print("reckg: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    return 0


def _fail(message: str) -> int:
    print("reckg: error: " + " ".join(message.split("\n")), file=sys.stderr)
    return 2


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reckg", description="From event logs and a catalogue to recommendations over gRPC."
    )
    parser.add_argument("--version", action="version", version=f"reckg {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_import(commands)
    _add_run(commands)
    for name, does in STAGE_COMMANDS.items():
        _add_stage(commands, name, does)
    _add_ablate(commands)
    _add_recommend(commands)
    _add_publish(commands)
    _add_serve(commands)
    _add_token(commands)
    _add_demo(commands)
    _add_describe(commands)
    return parser


def _add(
    commands: argparse._SubParsersAction, name: str, does: str, example: str, run: Command
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=does,
        description=does[0].upper() + does[1:] + ".",
        epilog="example:\n" + "\n".join(f"  {line}" for line in example.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def _add_import(commands: argparse._SubParsersAction) -> None:
    example = (
        "reckg import movielens ml-latest-small --out build/dataset --min-weight 4 --k-core 5\n"
        "reckg import tables my-logs/ --out build/dataset"
    )
    parser = _add(commands, "import", "read data of another format into a dataset folder", example, _import)
    parser.add_argument("format", choices=FORMATS, help="format of SRC")
    parser.add_argument("src", type=Path, metavar="SRC", help="folder or file to read")
    parser.add_argument("--out", type=Path, required=True, help="dataset folder to write")
    parser.add_argument("--name", help="name of the data set; recbole: also the prefix of the files")
    parser.add_argument(
        "--min-weight", type=float, metavar="X", help="drop interactions with a weight (rating) below X"
    )
    parser.add_argument("--k-core", type=int, default=0, metavar="K", help="drop users and items with fewer than K")
    parser.add_argument(
        "--duplicates", choices=("keep", "first", "last", "sum"), default="keep", help="of repeated interactions"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset folder if it exists")


def _add_run(commands: argparse._SubParsersAction) -> None:
    example = "reckg run jobs/configs/bookshop.toml --data build/dataset --out build/run"
    parser = _add(commands, "run", "run all stages; skip those that are up to date", example, _run)
    _add_run_arguments(parser)


def _add_stage(commands: argparse._SubParsersAction, name: str, does: str) -> None:
    example = f"reckg {name} jobs/configs/bookshop.toml --data build/dataset --out build/run"
    if name == "evaluate":
        example += f"\n{example} --log served/ --log-events events.parquet"
    parser = _add(commands, name, f"one stage: {does}", example, _run)
    _add_run_arguments(parser)
    parser.set_defaults(only=name.replace("-", "_"))
    if name == "evaluate":
        _add_log_arguments(parser)


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file, see docs/configuration.md")
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--out", type=Path, required=True, help="run folder, new or of an earlier run")
    parser.add_argument("--overwrite", action="store_true", help="replace finished results that no longer fit")
    parser.set_defaults(only=None, log=None)


def _add_log_arguments(parser: argparse.ArgumentParser) -> None:
    log = parser.add_argument_group("from logs", "see docs/evaluation-from-logs.md")
    log.add_argument(
        "--log", type=Path, help="log of served recommendations, a file or a folder: also estimate from it"
    )
    log.add_argument("--log-events", type=Path, metavar="FILE", help="table of what was taken; default: the log says")
    log.add_argument(
        "--log-window", type=int, default=86_400, metavar="S", help="seconds in which an event counts (default: 86400)"
    )
    log.add_argument(
        "--log-match",
        choices=("place", "list"),
        default="place",
        help="a propensity is of the item at its place, or anywhere in the list (default: place)",
    )
    log.add_argument("--log-clip", type=float, metavar="W", help="clip weights at W (default: no clipping)")


def _add_ablate(commands: argparse._SubParsersAction) -> None:
    example = "reckg ablate jobs/configs/bookshop.toml --data build/dataset --out build/ablation --seeds 0,1,2"
    does = "measure what the graph, each of its relations and the texts are worth"
    parser = _add(commands, "ablate", does, example, _ablate)
    _add_run_arguments(parser)
    parser.add_argument("--seeds", default="0,1,2", help="training seeds (default: 0,1,2)")
    parser.add_argument("--only", choices=("graph", "text", "relations"), help="one question (default: all)")


def _add_recommend(commands: argparse._SubParsersAction) -> None:
    example = "reckg recommend build/run/bundle --out build/recommendations.parquet --k 20"
    parser = _add(commands, "recommend", "write recommendations of many users to a file", example, _recommend)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    parser.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    parser.add_argument(
        "--users",
        type=Path,
        help="list of user ids: .txt, or a table with user_id and, where wanted, recent_item_ids and attributes "
        "(default: all)",
    )
    parser.add_argument("--new-items", type=Path, help="table of items that the bundle does not have yet")
    parser.add_argument("--k", type=positive_integer, default=10, help="items a user (default: 10)")
    parser.add_argument("--no-rerank", action="store_true", help="in the order of retrieval, which is faster")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def _add_publish(commands: argparse._SubParsersAction) -> None:
    example = "reckg publish build/run build/store --keep 5"
    parser = _add(commands, "publish", "copy a bundle into a store; servers take the latest", example, _publish)
    parser.add_argument("source", type=Path, metavar="RUN_OR_BUNDLE", help="run folder or bundle folder")
    parser.add_argument("store", type=Path, metavar="STORE", help="folder of the versions, new or not")
    parser.add_argument(
        "--keep", type=positive_integer, metavar="N", help="remove all but the last N versions (default: none)"
    )


def _add_serve(commands: argparse._SubParsersAction) -> None:
    example = "reckg serve build/run/bundle --port 50051\nreckg serve build/store --workers 4 --config server.toml"
    parser = _add(commands, "serve", "answer gRPC calls from a bundle", example, _serve)
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="bundle folder, or a store of bundles")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file of settings, see docs/serving.md")
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port; 0: a free one, printed (default: 50051)")
    parser.add_argument("--workers", type=positive_integer, metavar="N", help="processes (default: 1)")
    parser.add_argument("--threads", type=positive_integer, metavar="N", help="threads of a process (default: 2)")
    parser.add_argument("--grace", type=float, metavar="S", help="seconds to drain (default: 10)")
    parser.add_argument(
        "--insecure", action="store_true", default=None, help="listen beyond this machine without TLS too"
    )


def _add_token(commands: argparse._SubParsersAction) -> None:
    does = "say who may call a server: create, list and revoke tokens"
    example = (
        "reckg token create --file tokens.jsonl --principal shop --scope recommend --scope events --days 90\n"
        "reckg token certificate --file tokens.jsonl --name shop.example --scope recommend\n"
        "reckg token list --file tokens.jsonl\n"
        "reckg token revoke --file tokens.jsonl 5f0c2a9e41d7"
    )
    actions = _add(commands, "token", does, example, _token_create).add_subparsers(metavar="ACTION", required=True)
    create = actions.add_parser("create", help="print a new token, once, and keep its hash")
    create.add_argument("--principal", required=True, help="who gets it; named in logs and rate limits")
    create.add_argument("--days", type=positive_integer, help="days until it expires (default: never)")
    create.set_defaults(command=_token_create)
    certificate = actions.add_parser("certificate", help="say what the holder of a client certificate may call")
    certificate.add_argument("--name", required=True, help="a name in the certificate")
    certificate.set_defaults(command=_token_certificate)
    show = actions.add_parser("list", help="show who may call what; no secrets")
    show.set_defaults(command=_token_list)
    revoke = actions.add_parser("revoke", help="remove a token or a certificate; servers follow within a second")
    revoke.add_argument("name", metavar="ID", help="a token's id, or a certificate's name")
    revoke.set_defaults(command=_token_revoke)
    for action in (create, certificate):
        action.add_argument(
            "--scope", action="append", required=True, choices=TOKEN_SCOPES, help="what may be called; repeatable"
        )
    for action in (create, certificate, show, revoke):
        action.add_argument("--file", type=Path, required=True, help="tokens file, the setting auth.tokens")


def _add_demo(commands: argparse._SubParsersAction) -> None:
    example = "reckg demo --out build/demo"
    parser = _add(commands, "demo", "the whole way on the embedded data set, with a call of the server", example, _demo)
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder to write (default: build/demo)")


def _add_describe(commands: argparse._SubParsersAction) -> None:
    example = "reckg describe build/run"
    parser = _add(commands, "describe", "say what a dataset folder, a run folder or a bundle holds", example, _describe)
    parser.add_argument("path", type=Path, metavar="PATH", help="dataset folder, run folder or bundle")


def _import(options: argparse.Namespace) -> None:
    from jobs.commands.import_data import import_data

    import_data(
        options.format,
        options.src,
        options.out,
        name=options.name,
        min_weight=options.min_weight,
        k_core=options.k_core,
        duplicates=options.duplicates,
        overwrite=options.overwrite,
    )


def _run(options: argparse.Namespace) -> None:
    from jobs.commands.describe import summary
    from reckg.config.run_config import read_config
    from reckg.pipeline.run.pipeline import run_pipeline

    config = read_config(options.config)
    state = run_pipeline(config, options.data, options.out, only=options.only, overwrite=options.overwrite)
    if options.only in (None, "evaluate"):
        print("\n" + summary(options.out, state))
    if options.log is not None:
        from jobs.commands.evaluate_log import evaluate_log, log_summary

        report = evaluate_log(
            config,
            options.out,
            options.log,
            events=options.log_events,
            window_s=options.log_window,
            match=options.log_match,
            clip=options.log_clip,
        )
        print("\n" + log_summary(options.out, report))


def _ablate(options: argparse.Namespace) -> None:
    from jobs.ablation.ablate import ablate, parse_seeds
    from jobs.commands.describe import ablation_summary
    from reckg.config.run_config import read_config

    config, seeds = read_config(options.config), parse_seeds(options.seeds)
    report = ablate(config, options.data, options.out, seeds=seeds, only=options.only, overwrite=options.overwrite)
    print("\n" + ablation_summary(options.out, report))


def _recommend(options: argparse.Namespace) -> None:
    from jobs.commands.recommend import recommend_all

    counts = recommend_all(
        options.bundle,
        options.out,
        users=options.users,
        new_items=options.new_items,
        k=options.k,
        rerank=not options.no_rerank,
        overwrite=options.overwrite,
    )
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items() if value not in ([], "")))


def _publish(options: argparse.Namespace) -> None:
    from jobs.commands.publish import publish

    done = publish(options.source, options.store, options.keep)
    print(f"{options.store}: the latest version is {done['version']}")
    if done["removed"]:
        print(f"removed: {', '.join(done['removed'])}")


def _serve(options: argparse.Namespace) -> None:
    from serving.settings import read_settings
    from serving.supervisor.supervisor import serve

    names = ("bundle", "host", "port", "workers", "threads", "insecure")
    given = {name: getattr(options, name) for name in names}
    serve(read_settings(options.config, grace_s=options.grace, **given))


def _token_create(options: argparse.Namespace) -> None:
    from serving.access.tokens import create_token

    print(create_token(options.file, options.principal, options.scope, options.days))


def _token_certificate(options: argparse.Namespace) -> None:
    from serving.access.tokens import allow_certificate

    allow_certificate(options.file, options.name, options.scope)


def _token_list(options: argparse.Namespace) -> None:
    from serving.access.tokens import describe_tokens

    print(describe_tokens(options.file))


def _token_revoke(options: argparse.Namespace) -> None:
    from serving.access.tokens import revoke

    revoke(options.file, options.name)


def _demo(options: argparse.Namespace) -> None:
    from jobs.commands.demo import demo

    demo(options.out)


def _describe(options: argparse.Namespace) -> None:
    from jobs.commands.describe import describe

    print(describe(options.path))


def positive_integer(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def _version() -> str:
    try:
        return version("reckg")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
