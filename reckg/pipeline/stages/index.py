"""Stage index: the items' serving vectors to a FAISS index that reaches its recall target."""

from __future__ import annotations

from pathlib import Path

from reckg.config.run_config import Config
from reckg.pipeline.ranking.index_choice import index_of
from reckg.pipeline.run.folder import n_threads, read_embeddings
from reckg.pipeline.run.state import StageCounts
from reckg.retrieval.faiss_index import import_faiss


def index(config: Config, data: Path, run: Path) -> StageCounts:
    """Writes index/.

    Args:
        config: of the run.
        data: dataset folder; not read.
        run: run folder with embeddings/.
    Returns:
        Counts for the log.
    Raises:
        ArtifactError: the index does not reach index.recall_target.
    """
    import_faiss().omp_set_num_threads(n_threads(config))
    users, items = read_embeddings(run, "serving")
    built = index_of(users, items, config)
    built.save(run / "index")
    counts = {"kind": built.kind, "compression": built.compression, "items": len(items), **built.settings}
    return counts | (built.recall or {})
