"""What a sweep leaves on disk: the schema shared by training, status and analysis (standard library only).

runs/<sweep>/plan.json                   the cells the sweep consists of, and what a worker needs to run them
runs/<sweep>/reference-<id>.parquet      π_ref's samples and gold scores on the evaluation prompts
runs/<sweep>/labels-<id>.parquet         `label_probability` of every pair of the preference data
runs/<sweep>/exact.parquet               EXACT_COLUMNS; the oracle world only, by bench.oracle.check
runs/<sweep>/evaluations.jsonl           saved policies measured again, by bench.evaluate
runs/<sweep>/<cell>/config.yaml          resolved configuration
runs/<sweep>/<cell>/records.jsonl        one CheckpointRecord a line
runs/<sweep>/<cell>/training.jsonl       one StepMetrics a line
runs/<sweep>/<cell>/samples.parquet      SAMPLE_COLUMNS, a row per checkpoint and response
runs/<sweep>/<cell>/held_out.parquet     HELD_OUT_COLUMNS, a row per checkpoint and held-out pair
runs/<sweep>/<cell>/status.json          one CellStatus
runs/<sweep>/<cell>/error.txt            traceback of a failed cell
runs/<sweep>/<cell>/resume/              where an unfinished cell goes on
runs/<sweep>/<cell>/policy/              saved policies, with save=
"""

from bench.records.best_of_n import best_of_n_kl, best_of_n_sizes, best_of_n_weights
from bench.records.checksums import cell_checksums, check_files, checksum, damages
from bench.records.files import (
    CONFIG_FILE,
    COPY_AGAIN,
    DEATHS_FILE,
    ERROR_FILE,
    EVALUATIONS_FILE,
    EXACT_COLUMNS,
    EXACT_FILE,
    HELD_OUT_COLUMNS,
    HELD_OUT_FILE,
    PLAN_FILE,
    POLICY_DIR,
    RECORDS_FILE,
    REFERENCE_COLUMNS,
    RESUME_DIR,
    RUN_AGAIN,
    SAMPLE_COLUMNS,
    SAMPLES_FILE,
    STATUS_FILE,
    TRAINING_FILE,
    WORKERS_DIR,
    DamagedRecord,
    read_json,
    remove_temporaries,
    write_atomically,
    write_checked_json,
    write_json,
    write_text,
)
from bench.records.metrics import (
    BEST_OF_N,
    GPO,
    METRICS,
    ONLINE,
    RLOO,
    SCHEMA_VERSION,
    CheckpointRecord,
    Metric,
    append_record,
    read_records,
)
from bench.records.plan import empty_plan, read_plan
from bench.records.status import (
    DONE,
    FAILED,
    INTERRUPTED,
    MISSING,
    RUNNING,
    CellStatus,
    CellView,
    cell_view,
    is_worked_on,
    read_status,
    write_status,
)
from bench.records.training import StepMetrics, append_steps, read_training

__all__ = [
    "BEST_OF_N",
    "CONFIG_FILE",
    "COPY_AGAIN",
    "DEATHS_FILE",
    "DONE",
    "ERROR_FILE",
    "EVALUATIONS_FILE",
    "EXACT_COLUMNS",
    "EXACT_FILE",
    "FAILED",
    "GPO",
    "HELD_OUT_COLUMNS",
    "HELD_OUT_FILE",
    "INTERRUPTED",
    "METRICS",
    "MISSING",
    "ONLINE",
    "PLAN_FILE",
    "POLICY_DIR",
    "RECORDS_FILE",
    "REFERENCE_COLUMNS",
    "RESUME_DIR",
    "RLOO",
    "RUNNING",
    "RUN_AGAIN",
    "SAMPLES_FILE",
    "SAMPLE_COLUMNS",
    "SCHEMA_VERSION",
    "STATUS_FILE",
    "TRAINING_FILE",
    "WORKERS_DIR",
    "CellStatus",
    "CellView",
    "CheckpointRecord",
    "DamagedRecord",
    "Metric",
    "StepMetrics",
    "append_record",
    "append_steps",
    "best_of_n_kl",
    "best_of_n_sizes",
    "best_of_n_weights",
    "cell_checksums",
    "cell_view",
    "check_files",
    "checksum",
    "damages",
    "empty_plan",
    "is_worked_on",
    "read_json",
    "read_plan",
    "read_records",
    "read_status",
    "read_training",
    "remove_temporaries",
    "write_atomically",
    "write_checked_json",
    "write_json",
    "write_status",
    "write_text",
]
