"""Encoders of toy width from the fixtures' made-up weights."""

from fixtures import make_encoder_fixtures as originals

from prpr.convert import encoders as convert
from prpr.encoders import compiled, dinov2, inception, vgg

MODULES = {
    "inception": (inception, inception.Inception(originals.DIVIDE)),
    "vgg16": (vgg, vgg.VGG16(originals.DIVIDE)),
    "dinov2": (dinov2, dinov2.DINOv2(*originals.DINOV2.values())),
}


def spec_of(name, resize="clean"):
    """The network of the fixture `name`."""
    module, narrow = MODULES[name]
    return module.spec(name, resize, narrow)


def converted(name, record=None):
    """What the fixture's state dict becomes."""
    record = originals.load(name) if record is None else record
    return convert.from_state(name, originals.recorded_state(record), name, spec_of(name))


def encoder_of(name, resize="clean", batch=4):
    """The encoder of the fixture `name`."""
    spec = spec_of(name, resize)
    variables = compiled.nested(converted(name).arrays, compiled.shapes(spec), name)
    return compiled.build(spec, variables, name, "made up", resize, batch)
