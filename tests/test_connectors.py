"""Connectors: published sizes, masks that hold, and an alignment in which nothing sees what it should not."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from zsemo_kit.core.errors import InputError
from zsemo_kit.training.connectors import SHAPES, Connector, QFormer, QPMapper, Shape, hide_parts, open_connector
from zsemo_kit.training.curriculum import Aligner
from zsemo_kit.training.speech_prompts import SpeechLLMConfig
from zsemo_kit.training.speechllm import add_lora, trained_numbers

SMALL = Shape("qformer", 16, 4, 2, 24, 12, queries=3)
NAMES = ("qformer_small", "qpmapper_small")


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def sounds(lengths: list[int], layers: int = 2, width: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    frames = torch.randn(len(lengths), max(lengths), layers, width, generator=made)
    return frames, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def small(name: str, **more: bool) -> Connector:
    torch.manual_seed(0)
    made = open_connector(name, 2, 10, 8, queries=3, **more)
    for norm in made.modules():  # as after some training: batch normalisation that adds and multiplies
        if isinstance(norm, nn.BatchNorm1d):
            nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.normal_(norm.bias)
    return made.eval()


# published sizes, on the meta device

def test_sizes_of_semollm() -> None:
    with torch.device("meta"):
        made = open_connector("qformer", 25, 1024, 4096)
    assert isinstance(made, QFormer) and made.queries.shape == (1, 32, 768)
    assert round(count(made.body) / 1e6, 1) == 94.5
    assert round(count(made.out) / 1e6, 2) == 3.15 == round((768 * 4096 + 4096) / 1e6, 2)
    assert 97.5e6 < trained_numbers(made) < 98.5e6
    assert made.linear.in_features == 1024 and made.linear.out_features == 256 and made.sum.weights.numel() == 25


def test_sizes_of_emosllm() -> None:
    for layers in (1, 13, 25):
        with torch.device("meta"):
            made = open_connector("qpmapper", layers, 1024, 3072)
        assert 10e6 < trained_numbers(made) < 17e6 and made.queries.shape == (1, 32, 768)


def test_sizes_of_lora_on_seven_billion() -> None:
    with torch.device("meta"):
        seven = LlamaForCausalLM(LlamaConfig(vocab_size=32000, hidden_size=4096, intermediate_size=11008,
                                             num_hidden_layers=32, num_attention_heads=32)).requires_grad_(False)
        whole = count(seven)
        lora = add_lora(seven, SpeechLLMConfig(tune="lora"))
    assert trained_numbers(lora) == 32 * 2 * 2 * (4096 + 4096) == 1_048_576
    assert round(whole / 1e9, 2) == 6.74 and count(lora) - whole == 1_048_576
    assert all("lora_" in n and ("q_proj" in n or "v_proj" in n) for n, p in lora.named_parameters() if p.requires_grad)


# structure

def test_cross_attention_in_every_second_layer() -> None:
    with torch.device("meta"):
        body = QFormer(25, 1024, 4096).body
    has = [hasattr(layer, "crossattention") for layer in body.encoder.layer]
    assert has == [True, False] * 6
    cross = body.encoder.layer[0].crossattention.attention
    assert cross.key.in_features == cross.value.in_features == 256 and cross.query.in_features == 768


def test_no_word_path_unless_asked_for() -> None:
    def names(words: bool) -> set[str]:
        return {n for n, _ in QFormer(2, 10, 8, SMALL, words=words).named_parameters()}

    more = names(True) - names(False)
    assert names(False) < names(True) and more and all(".intermediate." in n or ".output." in n for n in more)


def test_queries_of_the_mapper_are_standard_normal_and_there_are_no_positions() -> None:
    torch.manual_seed(0)
    made = QPMapper(1, 64, 8)
    assert abs(made.queries.std().item() - 1) < 0.02 and abs(made.queries.mean().item()) < 0.02
    plain = QPMapper(2, 10, 8, replace(SHAPES["qpmapper_small"], front="linear", queries=3)).eval()
    frames, mask = sounds([20])
    mixed = frames[:, torch.randperm(20)]
    assert torch.allclose(plain(frames, mask), plain(mixed, mask), atol=1e-5)  # order of frames is nothing to it


def test_layers_are_weighed_by_a_softmax() -> None:
    made = small("qformer_small")
    frames, mask = sounds([40, 33])
    with torch.no_grad():
        made.sum.weights.copy_(torch.tensor([30.0, -30.0]))
    only = frames.clone()
    only[:, :, 1] = 7.0
    assert torch.allclose(made(frames, mask), made(only, mask), atol=1e-5)
    with torch.no_grad():
        made.sum.weights.zero_()
    mean = frames.mean(2, keepdim=True).expand_as(frames)
    assert torch.allclose(made(frames, mask), made(mean, mask), atol=1e-5)


# masks

@pytest.mark.parametrize("name", [*NAMES, "linear qformer", "linear qpmapper"])
def test_padding_changes_nothing(name: str) -> None:
    torch.manual_seed(3)
    if name in NAMES:
        made = small(name)
    else:
        kind = name.split()[1]
        shape = replace(SHAPES[f"{kind}_small"], front="linear", queries=3)
        made = (QFormer if kind == "qformer" else QPMapper)(2, 10, 8, shape).eval()
    lengths = [57, 40, 9, 1, 8]
    frames, mask = sounds(lengths)
    vectors = made(frames, mask)
    assert vectors.shape == (5, 3, 8) and torch.isfinite(vectors).all()
    for junk in (0.0, 1e4, -3.0):
        assert torch.allclose(vectors, made(frames.masked_fill(~mask[..., None, None], junk), mask), atol=1e-5)
    longer = torch.cat([frames, torch.full((5, 31, 2, 10), 5.0)], 1)
    assert torch.allclose(vectors, made(longer, torch.cat([mask, mask.new_zeros(5, 31)], 1)), atol=1e-4)
    for i, n in enumerate(lengths):
        assert torch.allclose(vectors[i : i + 1], made(frames[i : i + 1, :n], mask[i : i + 1, :n]), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_real_frame_is_heard_and_no_padded_one_has_a_gradient(name: str) -> None:
    made = small(name)
    frames, mask = sounds([40, 24])
    frames.requires_grad_(True)
    made(frames, mask).square().sum().backward()
    felt = frames.grad.abs().sum((2, 3)) > 0  # type: ignore[union-attr]
    assert torch.equal(felt, mask)


@pytest.mark.parametrize("name", NAMES)
def test_standardised_frames(name: str) -> None:
    made, plain = small(name, standardise=True), small(name)
    frames, mask = sounds([40, 24])
    made.mean.normal_()
    made.deviation.uniform_(0.5, 3)
    assert torch.allclose(made(frames * made.deviation + made.mean, mask), plain(frames, mask), atol=1e-4)


def test_masking_is_of_training_only_and_leaves_what_it_is_given() -> None:
    made = small("qpmapper_small")
    frames, mask = sounds([80, 70])
    kept = frames.clone()
    assert torch.equal(made(frames, mask), made(frames, mask))
    made.train()
    made(frames, mask)
    assert torch.equal(frames, kept)
    torch.manual_seed(1)
    given = torch.ones(200, 50, 40)
    out = hide_parts(given, 0.3)
    assert out.shape == given.shape and (given == 1).all() and set(out.unique().tolist()) == {0.0, 1.0}
    rows, bands = (out == 0).all(2), (out == 0).all(1)
    assert torch.equal(out == 0, rows[:, :, None] | bands[:, None])  # whole frames and whole bands, nothing else
    for hidden, longest, mean in ((rows, 16, 4), (bands, 13, 3)):
        assert hidden.sum(1).max() <= longest and hidden.sum(1).float().mean() > mean
        assert (hidden.int().diff(dim=1).abs().sum(1) <= 2).all()  # one stretch an utterance
        assert len(hidden.unique(dim=0)) > 50  # each utterance its own
    torch.manual_seed(1)
    assert torch.equal(hide_parts(given, 0.3), out) and torch.equal(hide_parts(given, 0.0), given)


def test_a_connector_without_a_name_or_a_body() -> None:
    with pytest.raises(InputError, match="unknown connector 'perceiver'"):
        open_connector("perceiver", 1, 2, 3)
    with pytest.raises(TypeError):
        Connector(2, 10, 8, SMALL)(*sounds([4]))


# words: there during the alignment, gone afterwards

def wordy(seed: int = 0) -> QFormer:
    torch.manual_seed(seed)
    return QFormer(2, 10, 8, SMALL, words=True).eval()


def test_queries_answer_the_same_without_the_path_for_words() -> None:
    made = wordy()
    frames, mask = sounds([30, 12])
    before, size = made(frames, mask), count(made)
    assert made.without_words() is made and count(made) < size
    assert torch.equal(made(frames, mask), before)
    plain = QFormer(2, 10, 8, SMALL).eval()
    plain.load_state_dict(made.state_dict())  # strict: nothing is left over
    assert torch.equal(plain(frames, mask), before)


def test_words_alone_hear_nothing_and_padding_of_words_changes_nothing() -> None:
    made = wordy()
    tokens, mask = torch.randn(2, 6, 16), torch.arange(6) < torch.tensor([[6], [4]])
    alone = made.words_alone(tokens, mask)
    other = made.words_alone(tokens.masked_fill(~mask[..., None], 9.0), mask)
    assert torch.allclose(alone[mask], other[mask], atol=1e-5)
    assert torch.allclose(alone[1:, :4], made.words_alone(tokens[1:, :4], mask[1:, :4]), atol=1e-5)


# alignment

def aligner(vocabulary: int = 20, seed: int = 0) -> Aligner:
    made = Aligner(wordy(seed), vocabulary, longest=10, width=6)
    for p in made.parameters():  # larger than fresh weights, so that what can be seen is seen
        if p.dim() > 1:
            nn.init.normal_(p, std=0.4)
    return made.eval()


def captions(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    return (torch.tensor([r + [0] * (longest - len(r)) for r in rows]),
            torch.tensor([[True] * len(r) + [False] * (longest - len(r)) for r in rows]))


def watched(net: nn.Module, name: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Tensor, ...], Tensor]]:
    "Arguments and result of each call of a method."
    calls: list[tuple[tuple[Tensor, ...], Tensor]] = []
    real: Callable[..., Tensor] = getattr(net, name)

    def watch(*given: Tensor) -> Tensor:
        found = real(*given)
        calls.append((given, found))
        return found

    monkeypatch.setattr(net, name, watch)
    return calls


def test_generation_never_sees_later_words_and_queries_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    net = aligner()
    calls = watched(net.connector, "together", monkeypatch)
    x, mask = net.connector.read(*sounds([30, 12]))
    ids, real = captions([[2, 5, 6, 7, 8, 9], [2, 5, 6, 7]])
    net.generate(x, mask, ids, real)
    n, first = 3, calls[-1][1]
    for place in range(1, 6):
        other = ids.clone()
        other[:, place] = 11
        net.generate(x, mask, other, real)
        moved = (calls[-1][1] - first).abs().amax(2)
        assert moved[:, : n + place].max() < 1e-6  # the queries, and every word before
        assert moved[0, n + place] > 1e-4 and (place > 3 or moved[1, n + place] > 1e-4)
    other_sound = net.connector.read(*sounds([30, 12], seed=1))[0]
    net.generate(other_sound, mask, ids, real)
    assert (calls[-1][1] - first).abs().amax(2)[:, n:][real].min() > 1e-4  # every word hears the sound through the queries


def test_generation_is_the_cross_entropy_of_the_next_word(monkeypatch: pytest.MonkeyPatch) -> None:
    net = aligner()
    calls = watched(net.connector, "together", monkeypatch)
    x, mask = net.connector.read(*sounds([30, 12]))
    ids, real = captions([[2, 5, 6, 7, 8, 9], [2, 5, 6]])
    loss = net.generate(x, mask, ids, real)
    hidden = calls[-1][1][:, 3:]
    each = [-(hidden[i, t] @ net.words.weight.T).log_softmax(0)[ids[i, t + 1]].item()
            for i, long in enumerate((6, 3)) for t in range(long - 1)]
    assert loss.item() == pytest.approx(sum(each) / len(each), rel=1e-5)


def test_padding_of_captions_changes_no_loss() -> None:
    net = aligner()
    x, mask = net.connector.read(*sounds([30, 12]))
    ids, real = captions([[2, 5, 6, 7], [2, 8, 9]])
    more = torch.cat([ids, torch.full((2, 3), 13)], 1), torch.cat([real, real.new_zeros(2, 3)], 1)
    junk = torch.where(real, ids, 17)
    for part in (net.generate, net.match):
        wanted = part(x, mask, ids, real)
        assert torch.allclose(part(x, mask, junk, real), wanted, atol=1e-5)
        assert torch.allclose(part(x, mask, *more), wanted, atol=1e-5)


def test_contrast_against_a_direct_transcription() -> None:
    net = aligner()
    heard, said = torch.randn(4, 3, 16), torch.randn(4, 5, 16)
    same = torch.eye(4)
    same[0, 2] = same[2, 0] = 1.0
    loss, alike = net.contrast(heard, said, same)
    a, b = net.sound_out(heard), net.words_out(said[:, 0])
    byhand = [[max(nn.functional.cosine_similarity(a[i, q], b[j], 0).item() for q in range(3)) / 0.07 for j in range(4)]
              for i in range(4)]
    assert torch.allclose(alike, torch.tensor(byhand), atol=1e-4)
    total = 0.0
    for table in (byhand, [list(c) for c in zip(*byhand, strict=True)]):
        for i, row in enumerate(table):
            norm = math.log(sum(map(math.exp, row)))
            total += sum((norm - v) * (0.9 * float(same[i, j] / same[i].sum()) + 0.1 / 4) for j, v in enumerate(row)) / 8
    assert loss.item() == pytest.approx(total, rel=1e-4)


def test_equal_captions_are_never_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    net = aligner()
    calls = watched(net, "match", monkeypatch)
    ids, real = captions([[2, 5, 6], [2, 5, 6], [2, 7], [2, 5, 6], [2, 8, 9, 4]])
    frames, mask = sounds([30, 12, 20, 25, 9])
    own = net.connector.read(frames, mask)[0]
    for seed in range(20):
        torch.manual_seed(seed)
        assert torch.isfinite(net(frames, mask, ids, real))
        x, _, what, _ = calls[-1][0]
        assert len(x) == 15
        which = [next(j for j in range(5) if torch.equal(row, own[j])) for row in x]
        fits = [torch.equal(ids[j], row) for j, row in zip(which, what, strict=True)]
        assert fits == [True] * 5 + [False] * 10
        assert which[5:10] == list(range(5)) and all(torch.equal(a, b) for a, b in zip(what[10:], ids, strict=True))


def test_hard_negatives_are_drawn_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    net = aligner()
    calls = watched(net, "match", monkeypatch)
    alike = torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    monkeypatch.setattr(net, "contrast", lambda *_: (torch.tensor(0.0), alike))
    ids, real = captions([[2, 5], [2, 6], [2, 7]])
    frames, mask = sounds([6, 6, 6])
    drawn = []
    for seed in range(60):
        torch.manual_seed(seed)
        net(frames, mask, ids, real)
        drawn.append(int(calls[-1][0][2][3, 1]))
    assert set(drawn) <= {6, 7} and drawn.count(6) > 45  # e^3 to 1


@pytest.mark.parametrize("rows", [[[2, 5, 6]], [[2, 5, 6]] * 3])
@pytest.mark.parametrize("training", [False, True])
def test_one_caption_only_gives_a_finite_loss_and_gradient(rows: list[list[int]], training: bool) -> None:
    net = aligner().train(training)
    frames, mask = sounds([20, 9, 4][: len(rows)])
    loss = net(frames, mask, *captions(rows))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert net.connector.queries.grad is not None and net.connector.linear.weight.grad is not None


def test_losses_stay_finite_where_similarity_is_extreme() -> None:
    net = aligner()
    frames, mask = sounds([20, 9, 4])
    with torch.no_grad():
        net.temperature.fill_(-3.0)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = net(frames, mask, *captions([[2, 5, 6], [2, 7], [2, 8]]))
        loss.backward()
        assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
