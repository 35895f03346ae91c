"""The cost of training the text encoder: a training step of each policy beside a step with the frozen encoder.

On the generated bookshop and, where the data are there, on ml-100k's titles: whole steps (loss, gradients, optimiser)
of each data set's configuration with all-MiniLM-L6-v2, interleaved in one process. ``step_ratio_*``: the largest of
the data sets' medians over rounds of (step / step with the frozen encoder). ``refresh_share_*``: the share of an
epoch spent on encoding all texts anew, likewise. On CUDA also ``peak_cuda_gb_*``: the most memory of a step, in GiB,
all policies' models being there.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from reckg.config.run_config import parse_config
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.training.batches import TrainBatch, batches
from reckg.model.training.memory import GB
from reckg.model.training.train import make_optimizer, set_learning_rate, train_step
from reckg.pipeline.run.folder import read_prepared
from reckg.pipeline.stages.build_graph import build_graph
from reckg.pipeline.training.model_inputs import build_model, load_graph
from reckg.pipeline.training.objective import objective_of, schedule_of
from reckg.pipeline.training.plan import training_plan
from tests.benchmarks.measure import beside, finish, interleaved, medians, parser, speedup
from tests.benchmarks.text_data import datasets, settings

POLICIES = {"frozen": "frozen", "top_1": "top-k", "lora": "lora", "full": "full"}


class Trained:
    """A model with a policy, ready for steps."""

    def __init__(
        self, policy: str, name: str, run: Path, batch_tokens: int | None, device: torch.device, bf16: bool
    ) -> None:
        self.device, self.bf16 = device, bf16
        values = settings(name)
        values["text"] |= {"policy": policy} | ({} if batch_tokens is None else {"batch_tokens": batch_tokens})
        config, prepared = parse_config(values, name), read_prepared(run)
        torch.manual_seed(0)
        graph = load_graph(run, prepared, config, "train")
        self.model = build_model(config, run, prepared, graph, device)
        self.tensors = GraphTensors(graph, device)
        plan = training_plan(config, run, prepared, device, "")
        self.objective = objective_of(config, self.model, self.tensors, prepared, plan)
        self.schedule = schedule_of(config, plan.batch_size)
        self.optimizer = make_optimizer(self.model, self.schedule)
        set_learning_rate(self.optimizer, self.schedule.warmup_steps, self.schedule.warmup_steps)
        self.batches = self._full_batches()
        self.model.train()

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.objective.histories.examples()) // self.schedule.batch_size)

    def _full_batches(self) -> Iterator[TrainBatch]:
        size, generator = self.schedule.batch_size, torch.Generator().manual_seed(0)
        for _ in itertools.count():
            found = list(batches(self.objective.histories, size, generator, self.schedule.targets))
            yield from found[:-1] or found

    def step(self) -> None:
        batch = next(self.batches)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            train_step(self.model, self.tensors, self.objective, self.optimizer, batch, self.schedule.clip_norm)

    def refresh_seconds(self) -> float:
        assert self.model.text is not None
        began = time.perf_counter()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            self.model.text.refresh()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rounds", type=int, default=21)
    arguments.add_argument("--batch-tokens", type=int, help="text.batch_tokens; the default is the configuration's")
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    options = arguments.parse_args()
    if options.beside:
        beside("text_step", options)
        return
    device, bf16 = torch.device(options.device), options.precision == "bf16"
    torch.set_num_threads(2)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, data in datasets(Path(folder), options.small).items():
            run = Path(folder) / f"run-{name}"
            run.mkdir()
            build_graph(parse_config(settings(name), name), data, run)
            made = {
                label: Trained(policy, name, run, options.batch_tokens, device, bf16)
                for label, policy in POLICIES.items()
            }
            steps, rounds = {label: one.step for label, one in made.items()}, 2 if options.small else options.rounds
            seconds = interleaved(steps, rounds, warm_up=3, device=options.device)
            if options.device == "cuda":
                figures |= {f"{name}/peak_cuda_gb_{label}": peak_cuda_gb(step) for label, step in steps.items()}
            for label, median in medians(seconds).items():
                figures[f"{name}/step_seconds_{label}"] = median
                if label == "frozen":
                    print(f"{name}: frozen step {median:.3f} s")
                    continue
                ratio, refresh = speedup(seconds, "frozen", label), made[label].refresh_seconds()
                share = refresh / (refresh + median * made[label].steps)
                print(f"{name}: {label} {median:.3f} s, {ratio:.2f} of frozen; refresh {refresh:.2f} s, {share:.0%}")
                figures |= {f"{name}/step_ratio_{label}": ratio, f"{name}/refresh_seconds_{label}": refresh}
                figures |= {f"{name}/refresh_share_{label}": share}
    for label in ("top_1", "lora", "full"):
        for figure in (f"step_ratio_{label}", f"refresh_share_{label}"):
            figures[figure] = max(value for key, value in figures.items() if key.endswith(f"/{figure}"))
    names = ("rounds", "batch_tokens", "small", "precision")
    finish(
        "text_step",
        figures,
        {name: getattr(options, name) for name in names},
        packages=["torch", "transformers", "peft"],
        seed=options.seed,
        out=options.out,
        device=options.device,
    )


def peak_cuda_gb(step: Callable[[], None]) -> float:
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated() / GB


if __name__ == "__main__":
    main()
