"""The sections that trials read: every knob, its unit, and where its default comes from.

Origins, at the end of each description: `paper C` is 2603.25794; `derived` follows from it by arithmetic; `code` stands
in the authors' public generation code; `default` is raypipe's own choice, never to be quoted as the paper's value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raypipe.config.base import Section, refusing


class MassWindow(Section):
    """Where the search looks in the conditional mass m_yy."""

    low: float = Field(105.0, gt=0)
    """GeV, lower edge of the lower sideband. [code]"""
    high: float = Field(160.0, gt=0)
    """GeV, upper edge of the upper sideband. [code; 145 is as defensible]"""
    sr_low: float = Field(120.0, gt=0)
    """GeV, lower edge of the signal region. [default]"""
    sr_high: float = Field(130.0, gt=0)
    """GeV, upper edge of the signal region. [default]"""

    @model_validator(mode="after")
    def _ordered(self) -> MassWindow:
        if not self.low < self.sr_low < self.sr_high < self.high:
            region, window = f"{self.sr_low:g}-{self.sr_high:g} GeV", f"{self.low:g}-{self.high:g} GeV"
            where = f"must lie inside the mass window {window} with a sideband on either side"
            raise ValueError(f"the signal region {region} {where}")
        return self

    def inside(self, mass: Any) -> Any:
        """Mask (n,) of masses in the signal region [sr_low, sr_high)."""
        return (mass >= self.sr_low) & (mass < self.sr_high)

    def beside(self, mass: Any) -> Any:
        """Mask (n,) of masses in the sidebands: in the window [low, high) but not in the signal region."""
        return (mass >= self.low) & (mass < self.high) & ~self.inside(mass)


class PseudoData(Section):
    """What plays the recorded data."""

    luminosity: float = Field(139.0, gt=0)
    """fb^-1. [default: full Run 2]"""
    background: list[str] = Field(min_length=1)
    """SM samples in the data. [paper C: continuum and four Higgs processes]"""
    disjoint: bool = False
    """Instances share no background event: so few are possible as fit into the simulated events. [default]"""


class MassFit(Section):
    """Smooth sideband fit that normalises the continuum in the signal region."""

    order: int = Field(2, ge=1, le=5)
    """Degree of the polynomial in the exponent. [default]"""
    bin_width: float = Field(1.0, gt=0)
    """GeV. [default]"""


class Flow(Section):
    """Ensemble of conditional masked autoregressive flows on sideband latents given m_yy."""

    members: int = Field(10, ge=1)
    """Flows trained together. Those that never saw the sideband events of a fold are pooled into the template of that
    fold: ``members x leave_out / classifier.folds`` of them. [default: four a fold; paper C: four an encoder]"""
    leave_out: int = Field(2, ge=1)
    """Parts of the sidebands, of as many as `classifier.folds`, on which a flow is not trained: they select its best
    epoch, and calibrate what is found with its template. [default]"""
    bins: int = Field(8, ge=2)
    """Pieces of a spline. [code]"""
    layers: int = Field(6, ge=1)
    """Autoregressive layers. [default]"""
    hidden: int = Field(64, ge=4)
    """Hidden features of a layer. [default]"""
    blocks: int = Field(2, ge=1)
    """Residual blocks of a layer. [default]"""
    mixing: Literal["reverse", "rotate"] = "reverse"
    """What lies between two layers: the dimensions in reversed order, or in a random rotation, which serves latent
    spaces, whose axes mean nothing (not `raw` features, whose axes do). [default]"""
    epochs: int = Field(100, ge=1)
    """Largest number of epochs. [default]"""
    patience: int = Field(20, ge=1)
    """Epochs without a better validation loss of any member before training stops. [default]"""
    batch_size: int = Field(2048, ge=2)
    """Events a step of each member. [default]"""
    learning_rate: float = Field(1e-3, gt=0)
    """Highest learning rate of Adam; cosine to zero. [default]"""
    mass_scale: float = Field(1.0, ge=0)
    """Range of the mass as the flows see it: 1 maps the mass window to [-1, 1], less lets the density change less
    with mass. In a latent space that hardly knows the mass, flows interpolate better so. [default]"""
    compile: bool = False
    """Compile the training step with torch.compile on a GPU: half a minute once, then a tenth of the time. [default]"""
    redraw: bool = True
    """Draw the latents of the sideband events anew, from their encoder's posteriors, every time a flow sees them: it
    learns the same density from more than one point an event. [default]"""
    share: bool = False
    """Train on the sidebands as they are without the injected signal, so that all signals and strengths in one
    pseudo-data set share their flows. The signal's tail in the sidebands, a per cent or two of it, is then part of the
    data and of the calibration, and only unknown to the flows. [default]"""
    oversampling: float = Field(4.0, gt=0)
    """Generated continuum events in the signal region per expected one that the classifiers train against. [default]"""
    judged: float = Field(20.0, gt=0)
    """The same of those that are judged: how many pass a cut is known the better the more they are. [default]"""
    sideband_draws: int = Field(10, ge=1)
    """Generated events per sideband event, at its mass: what calibrates a cut is the ratio of the two. [default]"""

    def mass_range(self, low: float, high: float) -> tuple[float, float]:
        """Masses (GeV) that the flows see as -1 and 1, for the mass window from ``low`` to ``high``."""
        centre, half = (low + high) / 2, (high - low) / 2 / max(self.mass_scale, 1e-6)
        return centre - half, centre + half

    def left_out(self, folds: int) -> list[tuple[int, ...]]:
        """For each member, the parts (0 to ``folds - 1``) of the sidebands it does not train on, or a `ValueError`."""
        # Neighbouring parts first, then those two apart, ...: ten pairs of five parts are all there are.
        chosen = ([(m + i * (1 + m // folds)) % folds for i in range(self.leave_out)] for m in range(self.members))
        plan = [tuple(sorted(parts)) for parts in chosen]
        counts = [sum(part in parts for parts in plan) for part in range(folds)]
        if self.leave_out >= folds or len(set(counts)) > 1 or any(len(set(p)) < self.leave_out for p in plan):
            given = f"flow.members = {self.members} flows that leave out {self.leave_out} (flow.leave_out)"
            rule = f"every part must be left out by as many flows; {folds} flows always do"
            raise ValueError(f"{given} of the {folds} parts (classifier.folds) of the sidebands: {rule}")
        return plan


class Classifier(Section):
    """k-fold ensembles of boosted trees, data against background."""

    folds: int = Field(5, ge=2)
    """Folds; scores are always out of fold. [paper C]"""
    members: int | None = Field(None, ge=1)
    """Models trained in every fold; as many as `ensemble` when not given. [default; paper C: four an encoder]"""
    ensemble: int = Field(2, ge=1)
    """Models averaged into one score. [paper C: ensembles of two]"""
    ensembles: int = Field(1, ge=1)
    """Random ensembles drawn from the members of each encoder; results are their mean, with their spread.
    [default; paper C: ten over all encoders]"""
    rounds: int = Field(300, ge=1)
    """Boosting rounds. [default]"""
    depth: int = Field(3, ge=0)
    """Tree depth; 0: bounded by `leaves` alone. [default]"""
    learning_rate: float = Field(0.1, gt=0, le=1)
    """Shrinkage. [default]"""
    subsample: float = Field(0.7, gt=0, le=1)
    """Share of events a tree sees. [default]"""
    early_stopping: int | None = Field(10, ge=1)
    """Rounds without a better validation loss before boosting stops; null: all rounds on all events of the fold. Where
    the signal is one event in a hundred the loss is noise and stops too early; averaging many fits is then the
    better guard. [default]"""
    leaves: int | None = Field(None, ge=2)
    """Most leaves of a tree, grown best first; null: grown level by level to `depth`. [default]"""
    min_child_weight: float = Field(1.0, ge=0)
    """Smallest sum of second derivatives (at most a quarter of an event each) in a leaf. [default]"""
    rotate: bool = False
    """Every model sees the features, scaled to unit width, in a random rotation of its own. Trees cut along axes, and
    those of a latent space mean nothing: averaged over rotations the cuts are smooth. Raw features keep their axes.
    [default]"""
    engine: Literal["xgboost", "xgboost_ray", "ray_train"] = "xgboost"
    """What trains large trees, those of `raypipe classify --workers`, of trials with the method `supervised` and of the
    confusion matrices of `raypipe latent`: one process, or Ray actors that share the rows; `ray_train`
    (XGBoostTrainer) stands in for `xgboost_ray` where XGBoost is 2.1 or newer. The small trees of other trials are
    always trained in their own process. [default]"""

    @property
    def trained(self) -> int:
        """Models trained in every fold."""
        return self.members or self.ensemble

    @model_validator(mode="after")
    def _can_be_trained(self) -> Classifier:
        if self.depth == 0 and self.leaves is None:
            raise ValueError("depth = 0 needs a number of leaves")
        if self.ensemble > self.trained:
            raise ValueError(f"ensemble = {self.ensemble} models need members >= {self.ensemble}, not {self.members}")
        return self


_BETWEEN = refusing(lambda given: [v for v in given if not 0 < v < 1], "working point {} is not between 0 and 1")
WorkingPoints = Annotated[list[float], _BETWEEN]


class Closure(Section):
    """Limits on what the sidebands say of the template; beyond one of them z is withheld.

    Both numbers come from sideband events that neither flow nor classifiers of their fold have seen. Templates that
    close have AUC 0.50 to 0.52 and kappa 0.7 to 2.0.
    """

    auc: float = Field(0.55, gt=0.5, le=1)
    """Largest AUC of the search's classifiers between sideband data and template (no unit, 0.5 is perfect); as far on
    the other side of 0.5 is as bad. An AUC counts as beyond it by more than two of its statistical errors. [default]"""
    kappa: float = Field(3.0, gt=1)
    """Largest ratio of sideband data to template after a cut (no unit, 1 is perfect), or its inverse. A ratio counts as
    beyond it by more than its statistical error. [default]"""


class Cuts(Section):
    """The cut on the classifier score and how its outcome is judged."""

    working_points: WorkingPoints = Field(min_length=1)
    """Background efficiencies in the SR, the first is quoted. [paper C: derived bounds 1.2 % and 0.32 %; default]"""
    sideband_calibration: bool = True
    """Know the background by held-out sideband data wherever there are some: cut at that share of them and of the
    simulated Higgs (else: of the template), and scale the template after the cut by data over template, with its
    uncertainty. [default]"""
    transfer_uncertainty: float = Field(0.0, ge=0)
    """Relative uncertainty of the sideband calibration where it is carried to the signal region, of a cut and of every
    bin of the likelihood; reports of scans say what simulation needs. [default]"""
    closure: Closure = Closure()
    """What the template must do in the sidebands for z to be quoted."""


class Selection(Cuts):
    """The same with the simulated Higgs, and what a scan must reach."""

    target: float = Field(5.0, gt=0)
    """Significance after the cut that a required injection must reach. [default: discovery; the paper's is lost]"""
    include_higgs: bool = True
    """Add the simulated SM Higgs to the background class; the flow cannot know a resonance. [paper A]"""
    higgs_uncertainty: float = Field(0.1, ge=0)
    """Relative uncertainty of the simulated Higgs yield. [default]"""


_SHAPE = {"depth": 0, "leaves": 128, "min_child_weight": 10, "subsample": 0.5}
WEAK_SIGNAL = Classifier(ensemble=25, rounds=300, learning_rate=0.05, early_stopping=20, **_SHAPE)
"""`raypipe classify`, for any share of signal: many fits, as long as a validation loss says (`make study-lhco`)."""
TABLE_TREES = Classifier(ensemble=10, rounds=20, early_stopping=None, **_SHAPE)
"""Searches on a table, for signals of a per cent and less, at half the time."""
