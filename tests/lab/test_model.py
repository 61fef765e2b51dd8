"""Numpy inference: cache equals full pass, true probabilities, seeds, stops, limits, accuracy."""

import math
from collections.abc import Generator

import numpy as np
import pytest

from fairlead.lab.model import Completion, Model, Token, prompt_of
from fairlead.lab.pool import MODELS, describe, load
from fairlead.lab.shapes import END, NORM_EPSILON, ROTARY_BASE, encode
from fairlead.lab.tasks import check, draw


@pytest.fixture(scope="module", params=["lab-nano", "lab-numbers"])
def model(request: pytest.FixtureRequest) -> Model:
    return load(request.param)


def _plain_logits(model: Model, codes: list[int]) -> np.ndarray:
    """The model written again, one position at a time, in float64 and without a cache."""
    arrays = {name: array.astype(np.float64) for name, array in model.arrays.items()}
    shape = model.shape
    half = shape.head_width // 2

    def norm(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean() + NORM_EPSILON)

    def rotate(x: np.ndarray, at: int) -> np.ndarray:
        angle = at * ROTARY_BASE ** (-np.arange(half) / half)
        one, two = x[:half], x[half:]
        return np.concatenate([one * np.cos(angle) - two * np.sin(angle), two * np.cos(angle) + one * np.sin(angle)])

    rows = [norm(arrays["embed"][code]) for code in codes]
    for layer in range(shape.layers):
        normed = [norm(row) for row in rows]
        rows = [
            row + sum(arrays["conv"][layer, back - 1] * normed[at - back] for back in (1, 2, 3) if at >= back)
            for at, row in enumerate(rows)
        ]
        triples = [(arrays["qkv"][layer] @ norm(row)).reshape(3, shape.heads, -1) for row in rows]
        mixed = []
        for at, (queries, _, _) in enumerate(triples):
            parts = []
            for head in range(shape.heads):
                query = rotate(queries[head], at)
                scores = np.array([query @ rotate(triples[past][1][head], past) for past in range(at + 1)]) / math.sqrt(
                    shape.head_width
                )
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                parts.append(sum(w * triples[past][2][head] for past, w in enumerate(weights)))
            mixed.append(np.concatenate(parts))
        rows = [row + arrays["out"][layer] @ part for row, part in zip(rows, mixed, strict=True)]
        rows = [row + arrays["down"][layer] @ np.maximum(arrays["up"][layer] @ norm(row), 0) ** 2 for row in rows]
    logits: np.ndarray = arrays["embed"] @ norm(rows[-1])
    return logits


def test_inference_equals_the_model_written_plainly(model: Model) -> None:
    codes = [END, *encode("what is 27+45?"), 10, *b"7"]
    logits = _plain_logits(model, codes)
    expected = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    assert np.allclose(model.next_logprobs("what is 27+45?", "7"), expected, atol=1e-3)


def test_inference_equals_torch_where_there_is_torch(model: Model) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("tqdm")
    from fairlead.lab.train import Network

    network = Network(shape=model.shape, precision=torch.float32)
    with torch.no_grad():
        network.embed.copy_(torch.from_numpy(model.arrays["embed"]))
        for name in ("conv", "qkv", "out", "up", "down"):
            for layer, parameter in enumerate(getattr(network, name)):
                parameter.copy_(torch.from_numpy(model.arrays[name][layer]))
        codes = [END, *encode("reverse banana"), 10]
        logprobs = network(torch.tensor([codes]))[0, -1].log_softmax(-1).numpy()
    assert np.allclose(model.next_logprobs("reverse banana"), logprobs, atol=1e-3)


def test_cached_steps_equal_full_passes(model: Model) -> None:
    for temperature, n in ((0.0, 1), (1.5, 3)):
        for completion in model.generate("sort 50213", max_tokens=12, temperature=temperature, n=n, seed=5):
            written = ""
            for token in completion.tokens:
                logprobs = model.next_logprobs("sort 50213", written)
                assert math.isclose(np.exp(logprobs.astype(np.float64)).sum(), 1.0, abs_tol=1e-4)
                if token.text != "?":
                    assert math.isclose(logprobs[ord(token.text)], token.logprob, abs_tol=1e-2)
                entropy = -(np.exp(logprobs) * logprobs).sum()
                assert math.isclose(entropy, token.entropy, abs_tol=1e-2)
                if token.text == "?":
                    break
                written += token.text


def test_reported_probabilities_ignore_the_temperature(model: Model) -> None:
    first = model.next_logprobs("12+34")
    for completion in model.generate("12+34", temperature=3.0, top_p=0.9, n=8, seed=1, max_tokens=1):
        for token in completion.tokens:
            if token.text != "?":
                assert math.isclose(token.logprob, first[ord(token.text)], abs_tol=1e-4)
    token = model.generate("12+34", top_logprobs=128)[0].tokens[0]
    assert len(token.top_logprobs) == 128
    assert math.isclose(sum(math.exp(value) for _, value in token.top_logprobs), 1.0, abs_tol=1e-4)
    assert token.top_logprobs[0] == (token.text, token.logprob)


def test_a_seed_names_an_answer_whatever_n_is(model: Model) -> None:
    def texts(n: int, seed: int) -> list[str]:
        return [c.text for c in model.generate("73+58", temperature=2.0, n=n, seed=seed, max_tokens=20)]

    assert texts(4, 7) == texts(4, 7)
    assert texts(4, 7)[:2] == texts(2, 7)
    assert texts(4, 7) != texts(4, 8)
    assert len(set(texts(8, 7))) > 1
    assert [c.text for c in model.generate("73+58", temperature=2.0, top_p=1e-6)] == [
        c.text for c in model.generate("73+58")
    ]


def _drain(stream: Generator[Token, None, Completion]) -> tuple[list[Token], Completion]:
    tokens = []
    while True:
        try:
            tokens.append(next(stream))
        except StopIteration as end:
            return tokens, end.value


@pytest.mark.parametrize("stop", [(), ("4",), ("1", "45"), ("345",), ("zzz",), ("44",)])
def test_streaming_equals_generating(model: Model, stop: tuple[str, ...]) -> None:
    for temperature in (0.0, 1.0):
        tokens, streamed = _drain(model.stream("sort 54344331", temperature=temperature, seed=2, stop=stop))
        assert tuple(tokens) == streamed.tokens
        assert "".join(token.text for token in tokens) == streamed.text
        assert streamed == model.generate("sort 54344331", temperature=temperature, seed=2, stop=stop)[0]
        assert not any(text in streamed.text for text in stop)


def test_stops_and_lengths() -> None:
    model = load("lab-numbers")
    whole = model.generate("sort 35421")[0]
    assert whole.finish_reason == "stop"
    assert whole.completion_tokens == len(whole.tokens) + 1
    assert whole.prompt_tokens == len("sort 35421") + 2
    short = model.generate("sort 35421", max_tokens=2)[0]
    assert (short.text, short.finish_reason, short.completion_tokens) == (whole.text[:2], "length", 2)
    cut = model.generate("sort 35421", stop=[whole.text[2:4]])[0]
    assert (cut.text, cut.finish_reason) == (whole.text[:2], "stop")
    assert len(cut.tokens) == 2


def test_any_text_is_taken_and_limits_are_told(model: Model) -> None:
    for prompt in ("", "\u00dcn\u00ef \u2713 \U0001f600", "a\nb\tc", "~>\x01\x00", "x" * 253):
        completion = model.generate(prompt, max_tokens=20)[0]
        assert completion.completion_tokens >= 1
        assert math.isfinite(completion.mean_logprob)
        assert completion.prompt_tokens + completion.completion_tokens <= model.context_window
    with pytest.raises(ValueError, match="at most 253"):
        model.generate("x" * 254)
    with pytest.raises(ValueError, match="max_tokens"):
        model.generate("x", max_tokens=0)
    with pytest.raises(ValueError, match="top_p"):
        model.generate("x", top_p=0.0)
    with pytest.raises(ValueError, match="temperature"):
        model.generate("x", temperature=-1.0)
    with pytest.raises(ValueError, match="n is 0"):
        model.generate("x", n=0)


def test_scratch_work_comes_before_the_answer() -> None:
    completion = load("lab-numbers").generate("7*12", mode="scratch")[0]
    work, mark, answer = completion.text.rpartition(">")
    assert mark
    assert completion.answer == answer
    assert completion.completion_tokens > len(answer)
    assert work


def test_a_chat_is_its_last_user_message() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": [{"type": "text", "text": "2+2"}, {"type": "image_url", "image_url": {}}]},
    ]
    assert prompt_of(messages) == "2+2"
    assert prompt_of(messages[:1]) == ""


def test_the_registry_agrees_with_the_files() -> None:
    for name, entry in MODELS.items():
        model = load(name)
        assert model.shape == entry.shape
        assert sum(array.size for array in model.arrays.values()) == entry.parameters
        assert entry.cost_usd(input_tokens=4_000_000, output_tokens=0) == pytest.approx(entry.parameters / 1e6)
    with pytest.raises(ValueError, match="unknown lab model 'gpt'"):
        describe("gpt")


@pytest.mark.parametrize(
    ("name", "tasks", "floor"),
    [
        ("lab-nano", None, 0.30),
        ("lab-small", None, 0.45),
        ("lab-large", None, 0.75),
        ("lab-numbers", ("add", "subtract", "compare", "sort_digits"), 0.75),
        ("lab-text", ("copy", "reverse", "look_up", "sort_letters"), 0.80),
    ],
)
def test_shipped_weights_answer_fresh_prompts(name: str, tasks: tuple[str, ...] | None, floor: float) -> None:
    # 150 prompts: a standard error of at most .04; floors are far below the card's figures.
    examples = draw(150, 77, split="test", tasks=tasks)
    model = load(name)
    right = sum(check(example, model.generate(example.prompt)[0].text) for example in examples)
    assert right / len(examples) >= floor
