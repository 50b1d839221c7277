"""The heads: published sizes, and logits that no padding changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from zsemo_kit.core.errors import InputError
from zsemo_kit.training.heads import AttentiveConvHead, ConvHead, LinearHead, WeightedSumHead, lengths_of


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def padded(texts: list[torch.Tensor], longer: int, fill: float) -> tuple[torch.Tensor, torch.Tensor]:
    time = max(len(t) for t in texts) + longer
    x = torch.full((len(texts), time, texts[0].shape[1]), fill, dtype=texts[0].dtype)
    mask = torch.zeros(len(texts), time, dtype=torch.bool)
    for i, t in enumerate(texts):
        x[i, : len(t)], mask[i, : len(t)] = t, True
    return x, mask


def published(head: ConvHead, x: torch.Tensor) -> torch.Tensor:
    """The head as released, for one text without padding."""
    x = x.transpose(0, 1)[None]
    a, b, c = head.convs
    x = F.relu(F.conv1d(x, a.weight, a.bias))
    x = F.relu(F.conv1d(x, b.weight, b.bias, padding=4))
    x = F.relu(F.conv1d(x, c.weight, c.bias, padding=2))
    return head.out(F.adaptive_avg_pool1d(x, 1)[:, :, 0])[0]


def test_published_size() -> None:
    assert parameters(ConvHead(768, 4)) == 172_388
    assert parameters(ConvHead(384, 4)) == 172_388 - 384 * 128
    assert parameters(ConvHead(768, 7)) == 172_388 + 3 * 33
    assert parameters(LinearHead(768, 4)) == 3_076


@pytest.mark.parametrize("width", [768, 384])
def test_equals_the_published_head_on_one_text(width: int) -> None:
    torch.manual_seed(1)
    head = ConvHead(width, 4)
    for n in (1, 2, 3, 8, 40):
        x = torch.randn(n, width)
        assert torch.allclose(head(x[None])[0], published(head, x), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    longer=st.integers(0, 12),
    fill=st.sampled_from([0.0, 1.0, -50.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_padding_changes_no_logit(lengths: list[int], longer: int, fill: float, seed: int) -> None:
    torch.manual_seed(seed)
    texts = [torch.randn(n, 48) for n in lengths]
    x, mask = padded(texts, longer, fill)
    for head in (ConvHead(48, 4), LinearHead(48, 4)):
        alone = torch.cat([head(t[None]) for t in texts])
        assert (head(x, mask) - alone).abs().max() < 1e-6


def test_padding_changes_no_gradient() -> None:
    torch.manual_seed(0)
    texts = [torch.randn(n, 16, dtype=torch.float64) for n in (2, 5, 9)]
    head = ConvHead(16, 3).double()
    x, mask = padded(texts, 4, 7.0)
    x.requires_grad_()
    head(x, mask).sum().backward()
    together = [p.grad.clone() for p in head.parameters()]
    assert x.grad is not None and not x.grad[~mask].any()
    head.zero_grad()
    torch.cat([head(t[None]) for t in texts]).sum().backward()
    assert all(torch.allclose(a, p.grad) for a, p in zip(together, head.parameters(), strict=True))


def test_without_masks_it_would_bleed() -> None:
    """The mask is needed: the same batch without it gives other logits."""
    torch.manual_seed(0)
    texts = [torch.randn(n, 16) for n in (2, 9)]
    x, mask = padded(texts, 0, 0.0)
    head = ConvHead(16, 3)
    assert (head(x)[0] - head(x, mask)[0]).abs().max() > 1e-3


def test_a_mask_with_a_gap_is_refused() -> None:
    with pytest.raises(InputError, match="right"):
        lengths_of(torch.tensor([[False, True]]))


def test_dropout_only_in_training() -> None:
    head = LinearHead(64, 2, dropout=0.5)
    x = torch.randn(1, 64)
    head.train()
    assert not torch.equal(head(x), head(x))
    head.eval()
    assert torch.equal(head(x), head(x))


# speech

def test_the_published_speech_heads_size() -> None:
    assert parameters(WeightedSumHead(13, 768, 4)) == 197_892 + 13, "as published, beside a weight a layer"
    assert parameters(WeightedSumHead(1, 88, 4)) == 88 * 256 + 256 + 256 * 4 + 4


def theirs_of(head: AttentiveConvHead) -> nn.Module:
    """s3prl's own CNNSelfAttention with the weights of ours."""
    model = pytest.importorskip("s3prl.downstream.emotion.model")
    made = model.CNNSelfAttention(256, 80, 5, 2, 5, 0.4, 4).eval()
    convs = [m for m in made.model_seq if isinstance(m, nn.Conv1d)]
    linears = [m for m in made.out_layer if isinstance(m, nn.Linear)]
    ours = [*head.convs, head.attention, head.out[0], head.out[2]]
    for a, b in zip([*convs, made.pooling.W, *linears], ours, strict=True):
        a.load_state_dict(b.state_dict())
    return made


@pytest.mark.parametrize("layers", [1, 3])
def test_attentive_is_s3prls_on_one_utterance(layers: int) -> None:
    torch.manual_seed(0)
    head = AttentiveConvHead(layers, 12, 4).eval()
    theirs = theirs_of(head)
    for n in (1, 4, 5, 6, 11, 48):
        x = torch.randn(n, layers * 12)
        summed = x if layers == 1 else (x.view(n, layers, 12) * head.weights.softmax(0)[:, None]).sum(1)
        time = (n + 4) // 5
        ours, reference = head(x[None])[0], theirs(head.projector(summed)[None], torch.zeros(1, time))[0]
        assert torch.allclose(ours, reference, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    longer=st.integers(0, 23),
    fill=st.sampled_from([0.0, -50.0, 1e6]),
    layers=st.sampled_from([1, 3]),
)
def test_padding_changes_no_attentive_logit(lengths: list[int], longer: int, fill: float, layers: int) -> None:
    torch.manual_seed(0)
    texts = [torch.randn(n, 12 * layers) for n in lengths]
    x, mask = padded(texts, longer, fill)
    head = AttentiveConvHead(layers, 12, 4).eval()
    alone = torch.cat([head(t[None]) for t in texts])
    assert (head(x, mask) - alone).abs().max() < 1e-5


def test_padding_changes_no_attentive_gradient() -> None:
    torch.manual_seed(0)
    texts = [torch.randn(n, 24, dtype=torch.float64) for n in (2, 17, 9)]
    head = AttentiveConvHead(2, 12, 3).double().eval()
    x, mask = padded(texts, 4, 7.0)
    x.requires_grad_()
    head(x, mask).sum().backward()
    together = [p.grad.clone() for p in head.parameters()]
    assert x.grad is not None and not x.grad[~mask].any()
    head.zero_grad()
    torch.cat([head(t[None]) for t in texts]).sum().backward()
    assert all(torch.allclose(a, p.grad) for a, p in zip(together, head.parameters(), strict=True))
