"""Inspection of models that give several classes to a clip: each class by itself, in the model's own probabilities."""

from __future__ import annotations

import math
from dataclasses import replace

import jsonschema
import pytest
import torch

from temporal_attn.evaluation.scoring import Scoring
from temporal_attn.keyframes import FrameGame, inspect_video
from temporal_attn.keyframes.page import json_schema
from temporal_attn.types import ModelOutput
from tests.inspections import make_complete_inspection
from tests.test_inspect import COLOURS, colour_classifier, colour_video


class Shifted(torch.nn.Module):
    """Logits are the sums of what the frames say, minus 2."""

    def classify(self, tokens, mask=None, pts=None):
        return ModelOutput((tokens * mask[..., None]).sum(1) - 2, mask.float())


SAYS = torch.tensor([[[3.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]])


def game_of(**options):
    return FrameGame(Shifted().eval(), SAYS, multi_label=True, temperature=2.0, **options)


def test_the_worth_of_a_class_is_its_own_logit():
    game = game_of(target=0)
    assert (game.v_full, game.v_empty) == (1.5, -2.0)
    alone = torch.tensor([[False, True, False, False]])
    assert game.value(alone).item() == -2, "what speaks for another class does not speak against this one"
    assert game.probability(game.everyone()[None]).item() == pytest.approx(1 / (1 + math.exp(-1.5 / 2)))
    assert game.about(1).multi_label
    assert game.under("mean").multi_label
    contrast = game.about((0, 1))
    assert contrast.v_full == pytest.approx(1.5 - 2.5)
    assert contrast.probability(game.everyone()[None]).item() == pytest.approx(1 / (1 + math.exp(1 / 2)))


@pytest.mark.parametrize(("target", "denied"), [("red", False), ("green", False), ("blue", True)])
def test_a_class_that_is_predicted_too_is_not_denied(tmp_path, target, denied):
    loaded = colour_classifier()._replace(scoring=Scoring(multi_label=True))
    with torch.no_grad():
        loaded.model.scale.fill_(1.0)
    video = colour_video(tmp_path / "clip.mp4", "rrrggggg")
    found = inspect_video(replaced_blue(loaded), video, target=target)
    p = found.probabilities[COLOURS.index(target)]
    assert p == pytest.approx(1 / (1 + math.exp(-found.logits[COLOURS.index(target)])), abs=1e-5)
    assert found.evidence.full == pytest.approx(p, abs=1e-5)
    assert found.verdict.startswith("The model sees green here") == denied
    assert found.scores()["unit"] == "logits"
    jsonschema.validate(found.scores(), json_schema("scores-1.json"))


def replaced_blue(loaded):
    """The colour model, which lets nothing be blue."""

    class NoBlue(type(loaded.model)):
        def classify(self, tokens, mask=None, pts=None):
            logits, weights = super().classify(tokens, mask, pts)
            return ModelOutput(logits - torch.tensor([0.0, 0.0, 5.0]), weights)

    model = NoBlue().eval()
    model.load_state_dict(loaded.model.state_dict())
    return loaded._replace(model=model)


def test_the_page_takes_differences_of_logits_as_they_are():
    page = replace(make_complete_inspection(), multi_label=True)
    from temporal_attn.keyframes.film_strip import render_film_strip

    assert '"share": 1,' in render_film_strip(page)
    assert '"share": 0.857' in render_film_strip(make_complete_inspection())


def test_a_method_of_another_library_is_named_in_the_result():
    found = replace(make_complete_inspection(), method="captum_ig")
    assert "Captum" in found.provenance["Method"]
    assert found.scores()["unit"] == "centred logits"
