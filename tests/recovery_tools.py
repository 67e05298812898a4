"""A tiny fine-tune of points in the plane that saves and checks often: to be disturbed."""

from prpr import config, record

TOTAL = 8  # steps of a run
SAVES = 3  # steps from checkpoint to checkpoint


def settings(*lams):
    """The configuration at these λ, one seed, no control."""
    cfg = config.defaults()
    cfg.lams, cfg.seeds, cfg.control = lams, (0,), False
    cfg.data.name, cfg.model.name = "ring8", "mlp"
    cfg.model.generator_ch = cfg.model.critic_ch = 4
    cfg.model.dim_z, cfg.train.batch, cfg.train.devices = 2, 16, 1
    cfg.base.steps, cfg.base.loss, cfg.train.steps, cfg.train.warmup = 4, "logistic", TOTAL - 1, 1
    cfg.train.log_every, cfg.train.diagnose_every, cfg.train.checkpoint_every = 1, 2, SAVES
    cfg.train.diagnose_size, cfg.score.encoder = 64, "pixels"
    cfg.score.n_real = cfg.score.n_fake = 100
    return cfg


def rows_of(workdir, name):
    """A run's rows; every line of the file is whole."""
    assert (workdir / "metrics.jsonl").read_bytes().endswith(b"\n")
    return [row for row in record.read_metrics(workdir) if row["run"] == name]
