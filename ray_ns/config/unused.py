"""Settings that a config gives and that nothing reads, so that each is said before anything starts."""

from collections.abc import Iterator

from ray_ns.config.config import Config
from ray_ns.config.schema import Section
from ray_ns.config.training import Noise, Student, Training

READ_BY = {  # of noise, by those values of augment
    "magnitude": ("affine", "randaugment"),
    **dict.fromkeys(("operations", "probability", "cutout_operation"), ("randaugment",)),
}


def unused(config: Config) -> list[str]:
    """A warning for each such setting that is given, and not as its default is."""
    return [f"{name} has no effect: {why}" for name, why in _found(config)]


def _found(config: Config) -> Iterator[tuple[str, str]]:
    """Each with what makes it so."""
    yield from _of_method(config)
    if not config.select.balance:
        yield from _given(config.select, "select", ("per_class",), "select.balance is false, so all labels are taken")
    if config.label.keep != "top":
        yield from _given(config.label, "label", ("top",), f"label.keep is {config.label.keep}")
    if config.data.validation is not None and config.data.test is not None:
        yield from _given(config.data, "data", ("held_out",), "validation and test images are given")
    for place, recipe in config.recipes().items():
        yield from _of_recipe(place, recipe)
        if isinstance(recipe, Student) and recipe.targets == "hard" and config.run.method == "noisy_student":
            yield from _given(recipe, place, ("temperature",), f"{place}.targets: hard takes the class alone")


def _of_method(config: Config) -> Iterator[tuple[str, str]]:
    method, run = config.run.method, config.run
    meta = method == "meta_pseudo_labels"
    uda = method == "uda" or (meta and (not config.mpl.reduced or config.control.enabled))  # UDA alone is a control
    for name, read in {"uda": uda, "mpl": meta}.items():
        if not read and name in config.model_fields_set:
            yield f"section {name}", f"run.method: {method} does not use it{' (mpl.reduced: true)' if meta else ''}"
    if run.rounds == 1:
        yield from _given(run, "run", ("mode", "patience"), "the run has one round")


def _of_recipe(place: str, recipe: Training) -> Iterator[tuple[str, str]]:
    if not recipe.finetune.steps:
        yield from _given(recipe.finetune, f"{place}.finetune", None, f"{place}.finetune.steps is 0")
    if recipe.fixres.size is None:
        yield from _given(recipe.fixres, f"{place}.fixres", None, f"{place}.fixres.size is null")
    if recipe.ema_decay is None:
        yield from _given(recipe, place, ("ema_warmup",), f"{place}.ema_decay is null")
    yield from _of_noise(f"{place}.noise", recipe.noise)
    for name, part in (("", recipe.optimizer), (".finetune", recipe.finetune.optimizer)):
        if part.schedule != "step":
            yield from _given(part, f"{place}{name}.optimizer", ("decay_rate",), f"its schedule is {part.schedule}")


def _of_noise(place: str, noise: Noise) -> Iterator[tuple[str, str]]:
    for name, of in READ_BY.items():
        if noise.augment not in of:
            yield from _given(
                noise, place, (name,), f"it is for {place}.augment: {' or '.join(of)}, {noise.augment} here"
            )


def _given(section: Section, place: str, names: tuple[str, ...] | None, why: str) -> Iterator[tuple[str, str]]:
    """Which of ``names``, or of all settings of the section, are given and not their defaults."""
    for name, field in type(section).model_fields.items():
        given = name in section.model_fields_set and getattr(section, name) != field.default
        if given and (names is None or name in names):
            yield f"{place}.{name}", why
