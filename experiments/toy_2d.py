"""A GAN and a flow over λ in the plane, where precision and recall are known exactly.

    python experiments/toy_2d.py --config=configs/toy_2d.py
    python experiments/toy_2d.py --data=grid25,two_moons --models=flow --config.seeds=0,1,2
    python experiments/toy_2d.py --config=configs/toy_2d.py:smoke

Of the file's configurations it takes `:gan` for the GAN (overrides: --config.KNOB=VALUE) and
`:flow` for the flow (--flow.KNOB=VALUE; λ and seeds are --config's). One figure a data set and
summary.json in the workdir; the same command again reuses what is there.
"""

from absl import flags

from prpr import cli

_GAN = cli.define_config("configs/toy_2d.py", kind="gan")
_FLOW = cli.define_config("configs/toy_2d.py", "flow", kind="flow", follows="config")
_DATA = flags.DEFINE_list("data", ["ring8", "skewed"], "data sets, see prpr/data/planar.py")
_MODELS = flags.DEFINE_list("models", ["gan", "flow"], "gan, flow, or both")
_CELLS = flags.DEFINE_integer("cells", 512, "in a row of the finest grid of the integration")
_WORKDIR = flags.DEFINE_string("workdir", None, "where everything is written; default runs/toy_2d")


def main() -> None:
    from prpr import planar  # after the flags: a typing mistake answers at once

    given = {"gan": _GAN.value, "flow": _FLOW.value}
    given["flow"].lams, given["flow"].seeds = given["gan"].lams, given["gan"].seeds
    configs = {name: given.get(name, given["gan"]) for name in _MODELS.value}
    workdir = _WORKDIR.value or f"runs/{_GAN.value.name}-exact"
    result = planar.run(configs, _DATA.value, workdir, _CELLS.value)
    print(planar.table(result))


if __name__ == "__main__":
    cli.run(main)
