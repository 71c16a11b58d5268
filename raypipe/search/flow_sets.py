"""Which flows the trials of a scan will ask for, so that they can be made before them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from raypipe.config import Config
from raypipe.fit.flows import FlowSet
from raypipe.kinds import background_of
from raypipe.search.case import Tables
from raypipe.search.cathode import flow_set
from raypipe.search.contrastive import as_seen, draw_case, trial_seed
from raypipe.search.diphoton import sample_groups
from raypipe.search.embeddings import representation
from raypipe.search.result import Trial


@dataclass(frozen=True)
class Wanted:
    """A set of flows that a trial will ask for."""

    name: str  # Representation
    encoder: int
    trial: Trial  # The first of those that ask for it

    def drawn(self, tables: Sequence[Tables], config: Config, device: str = "cpu") -> FlowSet:
        """The set as the trial will see it; ``tables`` of its representation, one an encoder."""
        config = as_seen(config, self.trial)
        case = draw_case(tables[self.encoder], config, self.trial, self.encoder, truth=False)
        return flow_set(case, config, trial_seed(config, self.trial, self.encoder), device)


def wanted_by(trials: Iterable[Trial], encoders: Mapping[str, int], config: Config) -> list[Wanted]:
    """Every set of flows, once; ``encoders``: number of encoders of each representation."""
    found: dict[tuple, Wanted] = {}
    for trial in trials:
        if background_of(trial.method).learns:
            name = representation(trial, sample_groups())
            own = () if config.flow.share else (trial.signal, trial.strength)
            for encoder in range(encoders[name]):
                found.setdefault((name, encoder, trial.instance, *own), Wanted(name, encoder, trial))
    return list(found.values())


def stacks_of(wanted: Sequence[Wanted], config: Config, most: int) -> list[list[Wanted]]:
    """What is trained together: at most so many, of one shape."""
    shapes = defaultdict(list)
    for one in wanted:
        shapes[as_seen(config, one.trial).flow.model_dump_json()].append(one)
    return [some[at : at + most] for some in shapes.values() for at in range(0, len(some), most)]
