"""``routestats model``."""

from __future__ import annotations

import argparse

from routestats.models.built_in import tiny_model

HELP = "print the folder of the built-in model"
DESCRIPTION = (
    "Print the folder of the built-in model, for vllm.LLM, vllm serve and transformers: a Mixtral "
    "of 32 layers, 8 experts, top-2, that is small and was trained for a short while."
)
EXAMPLES = (("tiny", "the folder, e.g. for: vllm serve $(routestats model tiny)"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its name."""
    parser.add_argument("name", choices=("tiny",), metavar="NAME", help="tiny")


def run(args: argparse.Namespace) -> int:
    """Print the folder."""
    print(tiny_model())
    return 0
