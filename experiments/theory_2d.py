"""The theory as runnable experiments in the plane, each a small figure and a table.

    python experiments/theory_2d.py --config=configs/toy_2d.py
    python experiments/theory_2d.py --checks=implied,bound --data=grid25 --config.seeds=0,1,2
    python experiments/theory_2d.py --config=configs/toy_2d.py:smoke

Checks: implied (the trade-off an f-divergence stands for), plug_in (published objective against
the envelope gradient), bound (a critic's error against that of D_λ), tau, lipschitz; see
prpr/planar/checks. Configurations as in experiments/toy_2d.py: --config.KNOB for the GAN,
--flow.KNOB for the flow; λ, seeds, devices and the split of the data are --config's. The same
command again reuses what is there.
"""

from absl import flags

from prpr import cli

_GAN = cli.define_config("configs/toy_2d.py", kind="gan")
_FLOW = cli.define_config("configs/toy_2d.py", "flow", kind="flow", follows="config")
_CHECKS = flags.DEFINE_list(
    "checks",
    ["implied", "plug_in", "bound", "tau", "lipschitz"],
    "checks of the theory, see prpr/planar/checks",
)
_DATA = flags.DEFINE_string("data", "ring8", "data set, see prpr/data/planar.py")
_CELLS = flags.DEFINE_integer("cells", 512, "in a row of the finest grid of the integration")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "where everything is written; default runs/NAME-theory/DATA"
)


def main() -> None:
    from prpr.planar import checks  # after the flags: a typing mistake answers at once

    gan, flow = _GAN.value, _FLOW.value
    flow.lams, flow.seeds = gan.lams, gan.seeds
    flow.data.split_seed, flow.data.fractions = gan.data.split_seed, gan.data.fractions
    workdir = _WORKDIR.value or f"runs/{gan.name}-theory/{_DATA.value}"
    configs = {"flow": flow, "gan": gan}
    found = checks.run(configs, _CHECKS.value, _DATA.value, workdir, _CELLS.value)
    print(checks.table(found))


if __name__ == "__main__":
    cli.run(main)
