"""What is made before the trials, events and an encoder of them (origins: see `raypipe.config.sections`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, field_validator, model_validator

from raypipe.config.base import Section


class FourLeptonSelection(Section):
    """Cuts on the hardest e-, e+, mu- and mu+. Paper B names none: card and generator defaults stand for them."""

    electron_pt: float = Field(10.0, ge=0)
    """GeV, smallest pT of an electron; the card has a threshold of its own. [default: Delphes CMS card, MadGraph]"""
    muon_pt: float = Field(10.0, ge=0)
    """GeV, smallest pT of a muon; the card has a threshold of its own. [default: Delphes CMS card, MadGraph]"""
    leading_pt: list[NonNegativeFloat] = Field([], max_length=4)
    """GeV, smallest pT of the hardest, second hardest.. lepton, such as a trigger's. [default; paper B: none]"""
    min_pair: float = Field(4.0, gt=0)
    """GeV, smallest mass of e+e- and of mu+mu-. [default; MadGraph's distance cut does the same in paper B]"""
    min_delta_r: float = Field(0.02, ge=0)
    """Smallest distance between any two of the leptons. [default; MadGraph: 0.4 for the background alone]"""
    z1_window: tuple[float, float] | None = None
    """GeV, window of the pair mass nearer m_Z. [default; paper B: none]"""
    z2_window: tuple[float, float] | None = None
    """GeV, window of the other pair's mass. [default; paper B: none]"""

    @field_validator("z1_window", "z2_window")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError("a window is two rising masses in GeV, such as [40, 120]")
        return value

    @model_validator(mode="after")
    def _regular(self) -> FourLeptonSelection:
        if min(self.electron_pt, self.muon_pt) < 2:
            raise ValueError("electron_pt and muon_pt must be 2 GeV or more: below, the parton-level cuts vanish")
        return self


class FourLeptons(Section):
    """Four-lepton samples (paper B)."""

    card: str = "cms"
    """Detector response card in raypipe/simulate/cards. [paper B: the default CMS card of Delphes]"""
    beam_energy: float = Field(13_000.0, gt=1000, le=100_000)
    """GeV, of both beams together. [paper B: LHC Run 2]"""
    selection: FourLeptonSelection = FourLeptonSelection()
    """Which events are kept."""


class SampleSize(Section):
    """How much of one sample to simulate."""

    events: int = Field(10_000, ge=1)
    """Selected events wanted, both splits together; whole shards are made, so a few more may come. [default]"""
    embedding_fraction: float = Field(0.5, gt=0, lt=1)
    """Share of the events that goes to the `embedding` split; the rest is `search`. [default; paper C: two sets]"""


class Simulate(Section):
    """Pythia8 + fastjet + the parametrised detector."""

    samples: dict[str, SampleSize] = Field(min_length=1)
    """Samples of the process table by name, each with its size."""
    card: str = "atlas"
    """Detector response card in raypipe/simulate/cards. [default; paper C: a simplified ATLAS layout in Delphes]"""
    shard_events: int = Field(5_000, ge=1)
    """Selected events aimed at by one shard, that is one Ray task on one core. [default]"""
    mpi: bool = False
    """Multi-parton interactions on: 3 to 12 times slower, <MET> +3 GeV, jets +3 to 16 %. [default]"""
    met_smearing: float = Field(0.0, ge=0)
    """GeV added in quadrature to each component of the missing momentum, to mimic pile-up. [default]"""
    four_leptons: FourLeptons = FourLeptons()
    """What four-lepton samples are made with instead of `card` and the diphoton selection."""


class Encoder(Section):
    """Particle transformer with a VAE-like output block (paper C, section III.1)."""

    width: int = Field(128, ge=8)
    """Embedding dimension of an object. [code]"""
    heads: int = Field(8, ge=1)
    """Attention heads; must divide `width`. [code]"""
    particle_blocks: int = Field(4, ge=1)
    """Particle-attention blocks. [paper C]"""
    class_blocks: int = Field(2, ge=1)
    """Class-attention blocks. [paper C]"""
    pair_width: int = Field(128, ge=4)
    """Hidden width of the pairwise-feature embedding that biases the attention. [code]"""
    feedforward: int = Field(3, ge=1)
    """Width of the feed-forward layers in units of `width`. [code]"""
    event_width: int = Field(32, ge=2)
    """Width of the event-level branch (pt_yy, dr_yy). [default]"""
    photon_pair: bool = False
    """The photon pair is one more object, of 125 GeV whatever its mass: attention sees its pair masses with the others,
    as that of X in X -> S H. Needs `embedding.eta: diphoton`. [default]"""
    latent: int = Field(6, ge=1)
    """Latent dimension. [paper C]"""
    projection: int = Field(64, ge=2)
    """Width of the two-layer projection head, dropped after training. [default; two layers: paper C]"""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout in attention and feed-forward layers. [code]"""
    layer_scale: float = Field(1e-4, gt=0)
    """Initial LayerScale of each residual branch. [code]"""

    @model_validator(mode="after")
    def _heads_divide(self) -> Encoder:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


class Parted(Section):
    """Trained on one part of the events, checked on another."""

    train_fraction: float = Field(0.6, gt=0, lt=1)
    """Share of the embedding split used for training. [paper C; of an autoencoder: default]"""
    validation_fraction: float = Field(0.2, gt=0, lt=1)
    """Share that selects the best epoch; the rest is the test part, which also gives the simulated Higgs. [paper C; of
    an autoencoder: default]"""
    parts_seed: int | None = Field(None, ge=0)
    """Seed that deals the events into these parts; null: the run's, for all of its encoders. [default]"""

    @model_validator(mode="after")
    def _test_part_left(self) -> Parted:
        if self.train_fraction + self.validation_fraction >= 1:
            raise ValueError("train_fraction + validation_fraction must leave a test part (sum below 1)")
        return self


class Embedding(Parted):
    """Training of the encoder."""

    encoders: int = Field(1, ge=1)
    """Encoders trained from different seeds and pooled in every search. [default; paper C: five]"""
    samples: list[str] = Field(min_length=1)
    """Samples trained on; events of one `group` share a label. [paper C: all for ID]"""
    opening: Literal["measured", "at_125", "none"] = "at_125"
    """Opening angle of the photon pair that the encoder sees: measured, at 125 GeV (what the same decay would have) or
    none. With the measured one, pt_yy and the objects the encoder can guess 14 % of the variance of m_yy, with the one
    at 125 GeV 0.2 %. [default; paper C: as measured]"""
    eta: Literal["lab", "diphoton"] = "lab"
    """What the pseudorapidity of objects is measured from: the laboratory, or the rapidity of the photon pair, as their
    azimuth always is. Nothing more of m_yy is told, and resonances that decay to the pair and jets are seen better.
    [default]"""
    encoder: Encoder = Encoder()
    """The network."""
    temperature: float = Field(0.1, gt=0)
    """Temperature of the supervised contrastive loss. [code]"""
    sample_latents: bool = True
    """Embed an event as one draw from its latent Gaussian instead of the mean. An event without jets has fewer inputs
    than the latent space has dimensions: the means fill a thin sheet that no density can follow. [default]"""
    beta: float = Field(0.03, ge=0)
    """Weight of the KL term. [default; the paper's number is lost]"""
    betas: dict[Literal["id", "ip", "ep", "background"], NonNegativeFloat] = Field({})
    """Another `beta` for encoders of some representations. [paper C chooses that of the background's encoder apart;
    default: one for all]"""
    batch_size: int = Field(8192, ge=4)
    """Events a step over all workers, every group equally represented. [paper C]"""
    steps_per_epoch: int = Field(100, ge=1)
    """Steps counted as one epoch. [default]"""
    epochs: int = Field(100, ge=1)
    """Largest number of epochs. [paper C]"""
    warmup_epochs: int = Field(5, ge=0)
    """Epochs of linear learning-rate warm-up before the cosine. [paper C]"""
    patience: int = Field(10, ge=1)
    """Epochs without a better validation loss before training stops. [paper C]"""
    learning_rate: float = Field(3e-4, gt=0)
    """Highest learning rate of Adam. [default; the paper's number is lost]"""
    learning_rate_floor: float = Field(1e-6, ge=0)
    """Learning rate at the end of the cosine. [code]"""
    gradient_clip: float = Field(20.0, gt=0)
    """Largest gradient norm. [code]"""
    reflect: bool = True
    """Reflect eta and phi of training events at random: both are symmetries of the collision and multiply the events
    by four. [default]"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the network in training; the loss and the embedding stay single precision. [default]"""
    compile: bool = False
    """Compile the network with torch.compile (needs a C++ compiler; worth it on a GPU). [default]"""

    @model_validator(mode="after")
    def _pair_has_a_direction(self) -> Embedding:
        if self.encoder.photon_pair and self.eta != "diphoton":
            raise ValueError(
                f"encoder.photon_pair needs eta = diphoton, not {self.eta}: objects have no angle to the pair"
            )
        return self
