"""Layers that read a conversation: padding, neighbours, missing turns and, where asked, the future change nothing."""

import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from zsemo_kit.core.errors import InputError
from zsemo_kit.training.dialogue_nets import AttentionBlock, ContextNet, FusionNet, JointNet
from zsemo_kit.training.heads import MLPHead
from zsemo_kit.training.text_encoder import mean_pool

WIDTH, LEVELS, CLASSES, HIDDEN, HEADS, WORDS = 5, 3, 4, 8, 2, 20
CLOSE = 2e-5
KINDS = ("context", "fusion", "joint")
quick = settings(max_examples=40, deadline=None)


def awake(net: nn.Module) -> nn.Module:
    "All weights drawn anew: fresh ones are zero in places (biases, layer norm), where an error would not show."
    for p in net.parameters():
        nn.init.normal_(p, 0, 0.4)
    return net.eval()


@cache
def net_of(kind: str, causal: bool) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        if kind == "context":
            return awake(ContextNet(WIDTH, CLASSES, HIDDEN, HEADS, causal=causal))
        if kind == "fusion":
            return awake(FusionNet((WIDTH, LEVELS), CLASSES, HIDDEN, HEADS, causal=causal))
        body = MLPHead(1, LEVELS, CLASSES, 6)
        body.out = nn.Identity()
        model = BertModel(BertConfig(vocab_size=WORDS, hidden_size=WIDTH * 2, num_hidden_layers=1, num_attention_heads=2,
                                     intermediate_size=8, max_position_embeddings=16), add_pooling_layer=False)
        return awake(JointNet(model, body, ContextNet(WIDTH * 2, CLASSES, HIDDEN, HEADS, causal=causal),
                              ContextNet(6, CLASSES, HIDDEN, HEADS, causal=causal),
                              FusionNet((HIDDEN, HIDDEN), CLASSES, HIDDEN, HEADS, causal=causal)))


class Turns:
    "One dialogue: vectors, features and words of each turn, and which modality is there."

    def __init__(self, said: list[bool], heard: list[bool], seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        n = len(said)
        self.said, self.heard = torch.tensor(said), torch.tensor(heard)
        self.x, self.y = torch.randn(n, WIDTH, generator=g), torch.randn(n, LEVELS, generator=g)
        self.words = [torch.randint(1, WORDS, (int(torch.randint(2, 7, (1,), generator=g)),), generator=g) for _ in range(n)]

    def __len__(self) -> int:
        return len(self.said)

    def cut(self, n: int) -> "Turns":
        out = object.__new__(Turns)
        out.said, out.heard, out.x, out.y, out.words = (v[:n] for v in (self.said, self.heard, self.x, self.y, self.words))
        return out

    def changed(self, t: int) -> "Turns":
        "The same but for what is said and heard at one turn."
        out = self.cut(len(self))
        out.x, out.y, out.words = out.x.clone(), out.y.clone(), list(out.words)
        out.x[t], out.y[t], out.words[t] = 3 - out.x[t], 3 - out.y[t], (out.words[t] + 7) % (WORDS - 1) + 1
        return out


def batch_of(kind: str, dialogues: list[Turns], more: int = 0, junk: float = 0.0) -> dict[str, Tensor]:
    "Padded input; `more` columns of padding beyond the longest, `junk` wherever nothing is seen."
    longest = max(map(len, dialogues)) + more
    real = torch.arange(longest) < torch.tensor([[len(d)] for d in dialogues])
    said, heard = torch.zeros(2, len(dialogues), longest, dtype=torch.bool)
    x, y = torch.full((*real.shape, WIDTH), junk), torch.full((*real.shape, LEVELS), junk)
    for i, d in enumerate(dialogues):
        n = len(d)
        said[i, :n], heard[i, :n] = d.said, d.heard
        x[i, :n][d.said], y[i, :n][d.heard] = d.x[d.said], d.y[d.heard]
    if kind == "context":
        return {"x": x, "real": real, "seen": said}
    if kind == "fusion":
        return {"text": x, "speech": y, "text_seen": said, "speech_seen": heard}
    words = [w for d in dialogues for w, s in zip(d.words, d.said, strict=True) if s]
    out = {"real": real, "text_seen": said, "speech_seen": heard, "speech": y[heard][:, None]}
    if words:
        ids = nn.utils.rnn.pad_sequence(words, batch_first=True)
        mask = torch.arange(ids.shape[1]) < torch.tensor([[len(w)] for w in words])
        out |= {"input_ids": ids, "attention_mask": mask.long(), "pool": mask}
    return out


@torch.no_grad()
def by_dialogue(kind: str, dialogues: list[Turns], causal: bool = False, **how: float) -> list[Tensor]:
    "Logits of each dialogue of one batch: (turns, classes), NaN where nothing is seen."
    logits = net_of(kind, causal)(**batch_of(kind, dialogues, **how))  # type: ignore[arg-type]
    asked = [d.said if kind == "context" else d.said | d.heard for d in dialogues]
    assert logits.shape == (sum(int(a.sum()) for a in asked), CLASSES) and logits.isfinite().all()
    out = []
    for a, part in zip(asked, logits.split([int(a.sum()) for a in asked]), strict=True):
        out.append(torch.full((len(a), CLASSES), torch.nan))
        out[-1][a] = part
    return out


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=CLOSE, rtol=CLOSE, equal_nan=True)


@st.composite
def some_dialogues(draw: st.DrawFn, most: int = 5) -> list[Turns]:
    "Dialogues of 1 to 9 turns, any of which may lack either modality or both."
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=most))
    there = [draw(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=n, max_size=n)) for n in sizes]
    return [Turns([a for a, _ in d], [b for _, b in d], draw(st.integers(0, 999))) for d in there]


# what must change nothing

@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@quick
@given(dialogues=some_dialogues(), more=st.integers(0, 5))
def test_padding_and_neighbours_change_no_logit(kind: str, causal: bool, dialogues: list[Turns], more: int) -> None:
    together = by_dialogue(kind, dialogues, causal, more=more)
    for d, found in zip(dialogues, together, strict=True):
        assert same(by_dialogue(kind, [d], causal)[0], found)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@quick
@given(dialogues=some_dialogues(), data=st.data())
def test_the_order_of_dialogues_changes_nothing(kind: str, causal: bool, dialogues: list[Turns], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(dialogues))))
    found, moved = by_dialogue(kind, dialogues, causal), by_dialogue(kind, [dialogues[i] for i in order], causal)
    assert all(same(found[i], m) for i, m in zip(order, moved, strict=True))


@pytest.mark.parametrize("kind", ["context", "fusion"])
@quick
@given(dialogues=some_dialogues(), junk=st.floats(-1e4, 1e4, width=32), more=st.integers(0, 3))
def test_what_stands_where_nothing_is_seen_is_not_read(kind: str, dialogues: list[Turns], junk: float, more: int) -> None:
    for causal in (False, True):
        plain, spoilt = by_dialogue(kind, dialogues, causal), by_dialogue(kind, dialogues, causal, junk=junk, more=more)
        assert all(same(a, b) for a, b in zip(plain, spoilt, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(dialogues=some_dialogues(3), data=st.data())
def test_a_causal_net_cannot_see_the_future(kind: str, dialogues: list[Turns], data: st.DataObject) -> None:
    d = max(dialogues, key=len)
    t = data.draw(st.integers(0, len(d) - 1))
    found = by_dialogue(kind, [d], causal=True)[0]
    assert same(by_dialogue(kind, [d.changed(t)], causal=True)[0][:t], found[:t])
    assert same(by_dialogue(kind, [d.cut(t + 1)], causal=True)[0], found[: t + 1])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_past_is_read_and_the_future_only_where_it_may_be(kind: str, causal: bool) -> None:
    d = Turns([True] * 6, [True] * 6, 1)
    found, first, last = (by_dialogue(kind, [x], causal)[0] for x in (d, d.changed(0), d.changed(5)))
    assert (first - found).abs().max(1).values.min() > 1e-3, "the first turn is read at every turn"
    assert ((last - found).abs().max(1).values[:5] > 1e-3).all() != causal
    assert same(last[:5], found[:5]) == causal


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_run_where_values_do(kind: str, causal: bool) -> None:
    "What is padded, missing or later has no gradient, and none is ever not a number."
    dialogues = [Turns([True, True, False, True], [True, False, False, True], 2), Turns([True], [True], 3)]
    given = batch_of(kind, dialogues, more=2)
    names = {"context": ["x"], "fusion": ["text", "speech"], "joint": ["speech"]}[kind]
    for name in names:
        given[name].requires_grad_(True)
    net = net_of(kind, causal)
    logits = net(**given)
    for row, (i, t) in enumerate([(0, 0), (0, 1), (0, 3), (1, 0)]):
        grads = torch.autograd.grad(logits[row].sum(), [given[n] for n in names], retain_graph=True)
        assert all(g.isfinite().all() for g in grads)
        if kind == "joint":
            assert [bool(g.any()) for g in grads[0]] == [i == 0, i == 0 and not (causal and t < 3), i == 1]
            continue
        for name, grad in zip(names, grads, strict=True):
            seen = given["speech_seen" if name == "speech" else "text_seen" if name == "text" else "seen"].clone()
            seen[1 - i] = False
            if causal:
                seen[i, t + 1 :] = False
            assert torch.equal(grad.ne(0).any(2), seen)


# dialogues of any shape

@pytest.mark.parametrize("kind", KINDS)
def test_one_turn_is_a_dialogue(kind: str) -> None:
    lone = [Turns([True], [True], s) for s in range(3)]
    plain, causal = by_dialogue(kind, lone), by_dialogue(kind, lone, causal=True)
    assert all(p.shape == (1, CLASSES) for p in (*plain, *causal)) and not same(plain[0], plain[1])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_turns_are_a_dialogue(kind: str, causal: bool) -> None:
    long, short = Turns([True] * 1000, [i % 3 > 0 for i in range(1000)], 4), Turns([True], [False], 5)
    found = by_dialogue(kind, [long, short], causal)
    assert found[0].shape == (1000, CLASSES) and same(by_dialogue(kind, [short], causal)[0], found[1])
    if causal:
        assert torch.allclose(by_dialogue(kind, [long.cut(400)], causal)[0], found[0][:400], atol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["fusion", "joint"])
@pytest.mark.parametrize("missing", ["text", "speech"])
def test_a_modality_may_be_all_missing(kind: str, causal: bool, missing: str) -> None:
    flags = [True] * 4
    there, gone = Turns(flags, flags, 6), [False] * 4
    without = Turns(gone, flags, 6) if missing == "text" else Turns(flags, gone, 6)
    other = without.changed(2)
    if missing == "text":
        other.y = without.y
    else:
        other.x, other.words = without.x, without.words
    found = by_dialogue(kind, [without], causal)[0]
    assert same(by_dialogue(kind, [other], causal)[0], found), "what is missing is not read"
    assert not same(by_dialogue(kind, [there], causal)[0], found)
    assert same(by_dialogue(kind, [there, without], causal)[1], found)


def test_where_nothing_at_all_is_seen_nothing_is_answered() -> None:
    blank = Turns([False] * 3, [False] * 3, 0)
    for kind in KINDS:
        assert by_dialogue(kind, [blank])[0].isnan().all()


# against plain references

def by_hand(net: ContextNet, x: Tensor) -> Tensor:
    "A context net on one whole dialogue (turns, width), from the equations alone."
    w = dict(net.named_parameters())
    x = x @ w["project.weight"].T + w["project.bias"]
    ways = []
    for end in ("", "_reverse") if net.gru.bidirectional else ("",):
        state, states = torch.zeros(net.gru.hidden_size), []
        for row in x.flip(0) if end else x:
            a = w[f"gru.weight_ih_l0{end}"] @ row + w[f"gru.bias_ih_l0{end}"]
            b = w[f"gru.weight_hh_l0{end}"] @ state + w[f"gru.bias_hh_l0{end}"]
            (a_r, a_z, a_n), (b_r, b_z, b_n) = a.chunk(3), b.chunk(3)
            reset, update = (a_r + b_r).sigmoid(), (a_z + b_z).sigmoid()
            state = (1 - update) * (a_n + reset * b_n).tanh() + update * state
            states.append(state)
        ways.append(torch.stack(states[::-1] if end else states))
    y = norm_by_hand(x + torch.cat(ways, 1), net.norm)
    return attend_by_hand(net.attention, y, y) @ w["out.weight"].T + w["out.bias"]


def norm_by_hand(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def attend_by_hand(block: AttentionBlock, x: Tensor, keys: Tensor) -> Tensor:
    "Scaled dot products over the turns and one more key and value that are zero, by einsum."
    layer = block.attention
    (q_w, k_w, v_w), (q_b, k_b, v_b) = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    heads = layer.num_heads
    q, k, v = ((a @ w.T + b).unflatten(1, (heads, -1)) for a, w, b in ((x, q_w, q_b), (keys, k_w, k_b), (keys, v_w, v_b)))
    weights = torch.einsum("qhd,khd->hqk", q, k).div(math.sqrt(q.shape[2])).exp()
    if block.causal:
        weights = weights * torch.ones(len(x), len(x)).tril()
    shares = weights / (1 + weights.sum(2, keepdim=True))  # exp(0) = 1 is the zero key's
    taken = torch.einsum("hqk,khd->qhd", shares, v).flatten(1) @ layer.out_proj.weight.T + layer.out_proj.bias
    return norm_by_hand(x + taken, block.norm)


@pytest.mark.parametrize("causal", [False, True])
@quick
@given(turns=st.integers(1, 12), seed=st.integers(0, 999))
def test_a_context_net_is_its_equations(causal: bool, turns: int, seed: int) -> None:
    d = Turns([True] * turns, [True] * turns, seed)
    with torch.no_grad():
        reference = by_hand(net_of("context", causal), d.x)  # type: ignore[arg-type]
    assert (by_dialogue("context", [d], causal)[0] - reference).abs().max() < 1e-5


@pytest.mark.parametrize("causal", [False, True])
@quick
@given(turns=st.integers(1, 9), seed=st.integers(0, 999))
def test_a_fusion_net_is_its_equations(causal: bool, turns: int, seed: int) -> None:
    "Text asks speech and speech asks text, then each asks itself."
    net, d = net_of("fusion", causal), Turns([True] * turns, [True] * turns, seed)
    with torch.no_grad():
        a, b = (layer(x) for layer, x in zip(net.project, (d.x, d.y), strict=True))
        a, b = attend_by_hand(net.cross[0], a, b), attend_by_hand(net.cross[1], b, a)
        halves = [attend_by_hand(block, x, x) for block, x in zip(net.own, (a, b), strict=True)]
        reference = net.out(torch.cat(halves, 1))
    assert (by_dialogue("fusion", [d], causal)[0] - reference).abs().max() < 1e-5


@pytest.mark.parametrize("causal", [False, True])
def test_a_joint_net_is_its_parts(causal: bool) -> None:
    "Word means through the text context, features through the speech context, both through the fusion."
    net, d = net_of("joint", causal), Turns([True] * 5, [True, False, True, True, False], 8)
    with torch.no_grad():
        means = torch.stack([net.model(w[None]).last_hidden_state[0].mean(0) for w in d.words])[None]
        real, heard = torch.ones(1, 5, dtype=torch.bool), d.heard[None]
        sound = torch.zeros(1, 5, 6)
        sound[heard] = net.body(d.y[d.heard])
        reference = net.fusion(net.text.states(means, real, real), net.speech.states(sound, real, heard), real, heard)
    assert same(by_dialogue("joint", [d], causal)[0], reference)


@pytest.mark.parametrize("causal", [False, True])
def test_a_turn_that_sees_nothing_takes_nothing(causal: bool) -> None:
    block = AttentionBlock(HIDDEN, HEADS, 0.0, causal).eval()
    x = torch.randn(2, 3, HIDDEN)
    none = torch.zeros(2, 3, dtype=torch.bool)
    assert same(block(x, torch.randn(2, 3, HIDDEN), none), nn.functional.layer_norm(x, (HIDDEN,)))


# shapes and settings

def test_causal_reading_has_one_direction_and_the_same_width() -> None:
    both, past = ContextNet(WIDTH, CLASSES, 16, 4), ContextNet(WIDTH, CLASSES, 16, 4, causal=True)
    assert (both.gru.bidirectional, both.gru.hidden_size) == (True, 8)
    assert (past.gru.bidirectional, past.gru.hidden_size) == (False, 16)
    assert both.out.in_features == past.out.in_features == 16


@pytest.mark.parametrize(("hidden", "heads"), [(7, 1), (6, 4), (8, 3), (1, 1), (9, 3)])
def test_a_width_that_cannot_be_shared_is_one_clear_line(hidden: int, heads: int) -> None:
    for make in (lambda: ContextNet(WIDTH, CLASSES, hidden, heads), lambda: FusionNet((WIDTH, LEVELS), CLASSES, hidden, heads)):
        with pytest.raises(InputError, match="hidden is not usable") as e:
            make()
        assert "\n" not in str(e.value) and str(hidden) in str(e.value)


def test_dropout_is_off_when_a_net_answers() -> None:
    d = [Turns([True] * 4, [True] * 4, 9)]
    for kind in KINDS:
        net = net_of(kind, False)
        with torch.no_grad():
            assert torch.equal(net(**batch_of(kind, d)), net(**batch_of(kind, d)))
            net.train()
            torch.manual_seed(0)
            draws = [net(**batch_of(kind, d)) for _ in range(2)]
            net.eval()
        assert not torch.equal(*draws)


def test_word_means_pass_by_padding() -> None:
    x = torch.randn(2, 4, 3)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    assert same(mean_pool(x, mask), torch.stack([x[0, :2].mean(0), x[1].mean(0)]))
