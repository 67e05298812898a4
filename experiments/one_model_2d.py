"""One model that takes λ as an input against a model for each λ, at equal compute, in the plane.

    python experiments/one_model_2d.py --config=configs/toy_2d.py
    python experiments/one_model_2d.py --data=ring8,two_moons --full --config.seeds=0,1,2
    python experiments/one_model_2d.py --flow --config=configs/toy_2d.py
    python experiments/one_model_2d.py --config=configs/toy_2d.py:smoke

Of the file's configurations it takes `:gan`, or with --flow `:flow`. Precision and recall are the
true ones. A figure a data set and summary.json in the workdir. On images: --config.dial=0.2,20 of
experiments/finetune_biggan.py and train_flow.py.
"""

from absl import flags

from prpr import cli

_GAN = cli.define_config("configs/toy_2d.py", kind="gan")
_FLOW_CONFIG = cli.define_config("configs/toy_2d.py", "flow_config", kind="flow", follows="config")
_FLOW = flags.DEFINE_bool("flow", False, "the flow's configuration instead of the GAN's")
_DATA = flags.DEFINE_list("data", ["ring8"], "data sets, see prpr/data/planar.py")
_FULL = flags.DEFINE_bool("full", False, "also separate models with the whole budget each")
_CELLS = flags.DEFINE_integer("cells", 512, "in a row of the finest grid of the integration")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "where everything is written; default runs/NAME-one"
)


def main() -> None:
    from prpr.planar import one, table  # after the flags: a typing mistake answers at once

    cfg = _FLOW_CONFIG.value if _FLOW.value else _GAN.value
    if _FLOW.value:
        cfg.lams, cfg.seeds = _GAN.value.lams, _GAN.value.seeds
    workdir = _WORKDIR.value or f"runs/{cfg.name}-one"
    key = "flow" if _FLOW.value else "gan"
    found = one.run(key, cfg, _DATA.value, workdir, _CELLS.value, full=_FULL.value)
    print(table(found))
    for name, sides in found["results"].items():
        for other in ("separate", "full"):
            ratio = sides["one"].get(f"hypervolume_over_{other}")
            if ratio is not None:
                print(f"{name}: hypervolume of the one model over {other}: {ratio:.3f}")


if __name__ == "__main__":
    cli.run(main)
