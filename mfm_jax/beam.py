"""Shards made by Apache Beam: the same jobs on one machine, or on a Flink, Spark or Dataflow cluster.

The pipeline is a list of shard numbers; each becomes a shard by `building.Job`, which writes it under a
temporary name and leaves alone what is whole. So a pipeline that was killed is simply run again, a worker
that does a shard twice changes nothing, and the shards are those of a run without Beam.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from mfm_jax.building import Job
from mfm_jax.records import Facts


@dataclasses.dataclass(frozen=True)
class Beam:
    """A Beam runner as the `workers` of `building.build`.

    Attributes:
        options: Beam's own, as on its command line: `--runner=FlinkRunner`, `--flink_master=host:8081`, ...
    """

    options: tuple[str, ...] = ("--runner=DirectRunner",)

    def __call__(self, job: Job, missing: Sequence[int]) -> Iterator[Facts]:
        """Run the pipeline to its end; give the summaries."""
        with beam.Pipeline(options=PipelineOptions(list(self.options))) as pipeline:
            numbers = pipeline | "Numbers" >> beam.Create(list(missing), reshuffle=True)
            numbers | job.name >> beam.ParDo(MakeShard(job))
        return map(job.summary, missing)


class MakeShard(beam.DoFn):
    """Makes one shard."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._records = beam.metrics.Metrics.counter("mfm_jax", "records")
        self._skipped = beam.metrics.Metrics.counter("mfm_jax", "skipped")

    def setup(self) -> None:
        """Load models and sound banks once for all shards of this worker."""
        self._job.prepare()

    def process(self, index: int) -> None:
        """Make shard `index` unless it is whole."""
        summary = self._job(index)
        self._records.inc(summary["records"])
        self._skipped.inc(len(summary["skipped"]))
