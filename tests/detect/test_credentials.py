"""Secrets: keys of known form, tokens, private keys, passwords, and what only looks like one. All of them are made up."""

# ruff: noqa: RUF001

import random
import re
import string
from pathlib import Path
from types import SimpleNamespace

import pytest

from fairlead.detect import credentials
from fairlead.detect.credentials import _FORMS, KINDS, find
from fairlead.detect.presidio import Presidio, load
from fairlead.detect.span import Span

AB = string.ascii_letters + string.digits


def some(n: int, alphabet: str = AB, seed: int = 7) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=n))


def found(text: str) -> list[tuple[str, str]]:
    return [(s.kind, text[s.start : s.end]) for s in find(text)]


HEX = "0123456789abcdef"
UP = string.ascii_uppercase + string.digits
# Put together here, so that no scanner takes this file for a leak.
KEYS = {
    "aws": "AKIA" + some(16, UP),
    "github": "ghp" + "_" + some(36),
    "gitlab": "glpat" + "-" + some(20),
    "anthropic": "sk-ant" + "-api03-" + some(80),
    "openai": "sk" + "-proj-" + some(60),
    "stripe": "sk" + "_live_" + some(24),
    "slack": "xoxb" + "-123456789012-123456789012-" + some(24),
    "slack_webhook": "hooks.slack" + ".com/services/T" + some(9, UP) + "/B" + some(9, UP) + "/" + some(24),
    "google": "AI" + "za" + some(35),
    "huggingface": "hf" + "_" + some(34),
    "npm": "npm" + "_" + some(36),
    "pypi": "pypi" + "-" + some(80),
    "sendgrid": "SG" + "." + some(22) + "." + some(43),
    "twilio": "SK" + some(32, HEX),
    "telegram": some(10, string.digits) + ":AA" + some(33),
    "digitalocean": "dop" + "_v1_" + some(64, HEX),
    "shopify": "shpat" + "_" + some(32, HEX),
    "databricks": "dapi" + some(32, HEX),
    "mailgun": "key" + "-" + some(32, HEX),
    "groq": "gsk" + "_" + some(52),
    "xai": "xai" + "-" + some(80),
    "replicate": "r8" + "_" + some(37),
    "perplexity": "pplx" + "-" + some(48),
    "linear": "lin_api" + "_" + some(40),
    "notion": "ntn" + "_" + some(46),
    "atlassian": "ATATT3" + some(180),
    "vault": "hvs" + "." + some(24),
    "docker": "dckr_pat" + "_" + some(27),
    "square": "sq0atp" + "-" + some(22),
    "age": "AGE-SECRET-KEY-1" + some(58, UP),
    "newrelic": "NRAK" + "-" + some(27, UP),
    "figma": "figd" + "_" + some(43),
    "postman": "PMAK" + "-" + some(24, HEX) + "-" + some(34, HEX),
    "grafana": "glsa" + "_" + some(32) + "_" + some(8, HEX),
}


def test_there_is_an_example_of_every_form() -> None:
    assert set(KEYS) | {"azure_storage"} == set(_FORMS)


@pytest.mark.parametrize("form", KEYS)
@pytest.mark.parametrize("around", ["{}", "it is {}.", '{{"key":"{}"}}', "a={};", "`{}`"])
def test_keys_of_known_form_are_found_whole(form: str, around: str) -> None:
    text = around.format(KEYS[form])
    (span,) = find(text)
    assert (span.kind, span.form, text[span.start : span.end]) == ("api_key", form, KEYS[form])


def test_the_key_in_a_connection_string_of_azure() -> None:
    key = some(86) + "=="
    assert found(f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={key};EndpointSuffix=x") == [
        ("api_key", key)
    ]


def test_web_tokens_and_assigned_tokens() -> None:
    jwt = f"eyJ{some(30)}.eyJ{some(60)}.{some(43)}"
    assert found(f"Authorization: Bearer {jwt}") == [("token", jwt)]
    for text in ("Bearer {}", "auth_token={}", '"refreshToken": "{}"', "secret_key = '{}'", "X-Api-Key: {}"):
        for token in (some(40), some(32, HEX), some(28, string.ascii_lowercase + string.digits)):
            assert found(text.format(token)) == [("token", token)], text


def test_a_long_random_string_alone_counts_if_its_case_is_mixed() -> None:
    assert found(f"what is {some(40)} for?") == [("token", some(40))]
    assert found(f"what is {some(40, HEX)} for?") == []


@pytest.mark.parametrize(
    "name", ["RSA PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "PGP PRIVATE KEY BLOCK"]
)
def test_private_keys_are_found_to_their_end_or_that_of_the_text(name: str) -> None:
    block = f"-----BEGIN {name}-----\n{some(200)}\n-----END {name}-----"
    assert found(f"look:\n{block}\nthanks") == [("private_key", block)]
    assert found("look:\n" + block[:120]) == [("private_key", block[:120])]
    assert found(block.replace("PRIVATE", "PUBLIC")) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("password: Tiger2024!", "Tiger2024!"),
        ("DB_PASSWORD=tiger", "tiger"),
        ('login("a", password="two words")', "two words"),
        ("postgres://app:s3cr3t@db.example.com:5432/x", "s3cr3t"),
        ("redis://:p@ss@cache:6379", "p@ss"),
        ('{"user":"bo","passwd":"abcde"}', "abcde"),
        ("my password is hunter2, help", "hunter2"),
        ("Passwort: geheim99", "geheim99"),
        ("пароль: qwerty12", "qwerty12"),
        ("密码：qwerty12", "qwerty12"),
        ("mysql --password=x1y2z3 shop", "x1y2z3"),
        ("password=my-S3cr3t!2024", "my-S3cr3t!2024"),
        ("password: the_Rock#2024", "the_Rock#2024"),
        ("password='my Very S3cret phrase'", "my Very S3cret phrase"),
        ("password: $ecret99!", "$ecret99!"),
        ("password: (S3cret!99", "(S3cret!99"),
        ("password: {S3cret}9", "{S3cret}9"),
        ("pwd=self.Made9!x", "self.Made9!x"),
    ],
)
def test_passwords_are_found(text: str, value: str) -> None:
    assert found(text) == [("password", value)]


@pytest.mark.parametrize(
    "text",
    [
        "password: str", "password is required", "PASSWORD=${DB_PASSWORD}", "password=<your-password>", "password: ********", "password = getpass.getpass()", "password=None",
        "password: string;", "password=your_password_here", "password=$DB_PASS", "password: [your password here]", "password: (see wiki)",
        "password: ${{ secrets.PW }}", "password=os.environ['X']", "password={password!r}", "get_password = (lambda: 1)",
        "password: _PasswordType | None",
        "password=client_key_password,",
        'options["password"] = parsed_path.password',
        "password=auth[1])",
        "password: Optional[str] = None",
        "https://user:pass@host:port", "the password is wrong", "forgot password?", "postgres://app:${PW}@db", "postgres://app:<password>@db", "https://example.com/a:b@c",
        'api_key = os.environ["OPENAI_API_KEY"]', "sk-your-api-key-goes-here-please", "Bearer <token>", "token: Optional[str] = None",
        f"commit {some(40, HEX)}", f"sha256:{some(64, HEX)}", f"sha512-{some(86)}==", "550e8400-e29b-41d4-a716-446655440000", "key=550e8400-e29b-41d4-a716-446655440000",
        f"data:image/png;base64,{some(400)}", f"ssh-rsa {some(372)}", f"call_{some(24)}", f"chatcmpl-{some(29)}", f"https://example.com/d/{some(44)}/edit",
        "getElementsByClassNameAndTagName2", "AbstractSingletonProxyFactoryBeanV2Impl", "/usr/lib/python3.11/site-packages/numpy/core/_multiarray_umath.so",
        "!function(e,t){var n=t(e[0]);for(var r=0;r<n.length;r++)n[r]^=e[r%8]}", "primary key: customer_id_2024_region_4", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ],
)  # fmt: skip
def test_look_alikes_are_left_alone(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize("word", ["key", "token", "sid", "auth", "session", "AccountKey"])
def test_a_run_of_words_is_not_gone_through_from_each_of_them(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the time is linear in the text: what all matches together go through is no more than some times its length."""
    seen = 0

    class Counting:
        def match(self, text: str, at: int) -> re.Match[str] | None:
            nonlocal seen
            match = pattern.match(text, at)
            seen += 1 if match is None else match.end() - at
            return match

    pattern = credentials._AFTER_WORD
    monkeypatch.setattr(credentials, "_AFTER_WORD", Counting())
    for text in (f"{word}=" * 5000, f"{word}=" * 100 + " x " + f"{word}={some(24)} " * 200):
        seen = 0
        find(text)
        assert seen <= 6 * len(text)
    assert found(f"{word}={some(24)} {word}={some(24)}1") == [("token", some(24)), ("token", some(24) + "1")]


def test_only_the_kinds_asked_for() -> None:
    text = f"password=hunter22 {KEYS['github']}"
    assert [s.kind for s in find(text)] == ["password", "api_key"]
    assert [s.kind for s in find(text, kinds=("password",))] == ["password"]
    assert set(KINDS) == {"api_key", "token", "private_key", "password"}


class Analyzer:
    """Answers as Presidio's engine does, by a list of words: stands in for it and its models, which are not here."""

    def analyze(
        self, *, text: str, language: str, entities: list[str], score_threshold: float
    ) -> list[SimpleNamespace]:
        assert language == "en"
        known = {"Ann Lee": ("PERSON", 0.85), "Brno": ("LOCATION", 0.6), "maybe": ("PERSON", 0.1)}
        return [
            SimpleNamespace(entity_type=entity, start=text.find(word), end=text.find(word) + len(word), score=score)
            for word, (entity, score) in known.items()
            if word in text and entity in entities and score >= score_threshold
        ]


def test_what_presidio_finds_are_spans() -> None:
    finder = Presidio(analyzer=Analyzer())
    text = "Ann Lee lives in Brno, maybe"
    assert finder.find(text, kinds=("name", "address")) == [
        Span(0, 7, "name", "presidio", 0.85),
        Span(17, 21, "address", "presidio", 0.6),
    ]
    assert [s.kind for s in finder.find(text, kinds=("name",))] == ["name"]
    assert finder.find(text, kinds=("email",)) == []


def test_presidio_itself_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pipeline of two rules in the place of a model: shows that it is loaded and asked as it wants, not how well it finds."""
    pytest.importorskip("presidio_analyzer", reason="pip install 'fairlead[presidio]'")
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(
        [{"label": "PERSON", "pattern": "Ann Lee"}, {"label": "GPE", "pattern": "Brno"}]
    )
    nlp.to_disk(tmp_path / "en_tiny")
    monkeypatch.chdir(tmp_path)
    spans = load("en_tiny").find("I am Ann Lee from Brno", kinds=("name", "address"))
    assert [(s.start, s.end, s.kind) for s in spans] == [(5, 12, "name"), (18, 22, "address")]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("DB_PASS=hunter2!", "hunter2!"),
        ("pass: hunter2!", "hunter2!"),
        ('{"db_pass": "hunter2!x"}', "hunter2!x"),
        ("pw: s3cret99", "s3cret99"),
        ("client_secret=abc123def", "abc123def"),
    ],
)
def test_passwords_after_names_that_may_mean_something_else(text: str, value: str) -> None:
    (found,) = find(text)
    assert (found.kind, text[found.start : found.end]) == ("password", value)


@pytest.mark.parametrize(
    "text",
    [
        "pass: 12 tests",
        "PASS: all good",
        "pass = compute(x1)",
        "secret: <your secret>",
        "bypass: route66",
        "the pass: fine",
        "pw=$PW",
    ],
)
def test_other_uses_of_those_names(text: str) -> None:
    assert find(text) == []
