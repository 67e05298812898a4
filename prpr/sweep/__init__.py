"""A sweep: the runs that sweep() of a config file means, and what became of them.

    def sweep():                                    # in configs/NAME.py
        for lam in (0.2, 1.0, 5.0):
            yield {"lams": (lam,), "seeds": (0, 1), "critic.lr": 1e-3}

Each dict holds knobs, by dotted name, on top of the file's configuration and of the command line's
overrides. It is taken apart into runs: one λ at one seed each, and one control at each seed
where `config.control` is set. What two dicts share, such as the control, is one run.

    ROOT/
      sweep.json            the expansion: a line a run
      base-<id>/            workdir of a base run, shared by all that start from it
      <id>/                 workdir of one run (`prpr.run`), and besides
        task.json           what it is to compute
        error.txt           why it failed, until it is tried again
        log.txt             what it printed, where it had a process of its own
      family-<id>/          runs trained side by side in one process; linked to the folders above
      summary.csv           a line a run: its state and its scores

A run's id is the first 10 hexadecimal digits of SHA-256 over {"base", "lam", "seed", "settings"}
as JSON (keys sorted, no spaces, ASCII). "settings" are the knobs of `jobs.settings` that differ
from their defaults; among them data.path where that is the data set (data.name "folder" or
"prepared"), and base.fit_* where base.path is given. "base" is the id of the base run, or
config.base.path as it is written. So an id does not depend on the order of knobs, on scoring, on
logging, or on knobs that later versions add. Should a default change, ids stay, and old runs'
checkpoints refuse the new setting.

`tasks` expands; `states` looks at the folders and makes the table; `here`, `local` and `slurm` run
what is missing, and `worker` is what a process of its own does; `rows` keeps a run's part of
metrics.jsonl whole where it goes on in another folder; `plan` says what it all will cost. Nothing
is imported here, so that `python -m prpr.sweep.worker` finds itself fresh.
"""
