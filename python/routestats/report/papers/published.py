"""Figures that papers published, with where each stands. What a paper does not give is not here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """Where a figure was read.

    Attributes
    ----------
    paper, arxiv, place : str
        `place` is the table or figure, where the figures stand in one.
    """

    paper: str
    arxiv: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.paper}, arXiv {self.arxiv}" + (f", {self.place}" if self.place else "")


MIXTRAL = Source("Mixtral of Experts", "2401.04088", "table 5")
MIXTRAL_LAYERS = (0, 15, 31)
# Percent of consecutive tokens, by layer: with the same first choice, with intersecting pairs.
MIXTRAL_REPETITION: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "ArXiv": ((14.0, 27.9, 22.7), (46.5, 62.3, 52.9)),
    "DM Mathematics": ((14.1, 28.4, 19.7), (44.9, 67.0, 44.5)),
    "Github": ((14.9, 28.1, 19.7), (49.9, 66.9, 49.2)),
    "Gutenberg": ((13.9, 26.1, 26.3), (49.5, 63.1, 52.2)),
    "PhilPapers": ((13.6, 25.3, 22.1), (46.9, 61.9, 51.3)),
    "PubMed": ((14.2, 24.6, 22.0), (48.6, 61.6, 51.8)),
    "StackExchange": ((13.6, 27.2, 23.6), (48.2, 64.6, 53.6)),
    "Wikipedia": ((14.4, 23.6, 25.3), (49.8, 62.1, 51.8)),
}

OFFLOADING = Source("Not All Models Suit Expert Offloading", "2505.16056")
SRP_TOKENS = 16
# Segment routing best performance over 16 tokens, percent; 22,528 x 512 tokens.
SRP: dict[str, float] = {
    "LLaMA-MoE-v2": 78.2,
    "Yuan2": 63.5,
    "PowerMoE": 55.2,
    "Qwen3": 54.1,
    "Phi-3.5": 52.0,
    "OLMoE": 50.9,
    "GRIN": 50.4,
    "Mixtral": 49.4,
    "MiniCPM": 48.9,
    "JetMoE": 47.5,
    "LLaMA-MoE-v1": 45.3,
    "XVERSE": 38.6,
    "Jamba": 38.1,
    "DeepSeek-V2-Lite": 37.9,
    "DeepSeekMoE": 36.9,
    "Qwen2": 36.7,
    "Qwen1.5": 30.7,
    "OpenMoE": 28.8,
}

OLMOE = Source("OLMoE", "2409.02060")
# Percent of a domain's tokens that a uniform router would send to an expert.
OLMOE_UNIFORM: dict[str, float] = {"OLMoE": 12.5, "Mixtral": 25.0}

EXFLOW = Source("ExFlow", "2401.08383")
# Tokens that the paper finds enough to estimate affinity.
EXFLOW_TOKENS = (1_000, 3_000)

SPECULATIVE_MOE = Source("Speculative MoE", "2503.04398")
# Percent of the MoE layer's forward time that is communication between the 8 GPUs of an
# expert-parallel DeepSeek-V2-Lite, at most. The lower end of the range that is cited, 47, was not
# found in the source.
EXPERT_PARALLEL_COMMUNICATION = 59.2
CITED_RANGE = (47.0, 59.0)
