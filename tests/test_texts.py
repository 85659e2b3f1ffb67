"""Texts: tokenizers, files, and keys that carry them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heirmark.data import DATASETS, load_task
from heirmark.data.naming import is_code, is_folder, names_files, parts_of
from heirmark.data.registry import foreign_to, load_data
from heirmark.data.tokenised import text_task
from heirmark.errors import BadArtifact, BadConfig, BadData, DataNotFound
from heirmark.keys.key import Key
from heirmark.keys.making import make_key
from heirmark.loading import load_named_task, load_pool
from heirmark.tasks.media import FILE, Sound, Text, load_medium, save_medium
from heirmark.tasks.space import PADDING, UNKNOWN
from made_up import WORDS, sentences

tokenizers = pytest.importorskip("tokenizers")

MEDIUM = Text.trained([" ".join(WORDS), "it ' s ! a fine day"])


@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_what_a_trained_tokenizer_has_read_comes_back_from_its_letters(texts: list[str]) -> None:
    medium = Text.trained(texts, vocabulary=6)
    whole = [text for text in texts if text.strip()]
    try:
        ids = medium.tokens(whole, 12)
    except BadData:  # what no letter is left of
        return
    assert ids.dtype == torch.int32
    assert medium.survives(ids).all()
    assert torch.equal(medium.tokens(medium.texts(ids), 12), ids)


@given(st.lists(st.lists(st.integers(1, MEDIUM.size - 1), min_size=1, max_size=6), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_words_in_a_row_survive(rows: list[list[int]]) -> None:
    ids = torch.tensor([row + [PADDING] * (6 - len(row)) for row in rows], dtype=torch.int32)
    assert MEDIUM.survives(ids).all()


def test_a_tokenizer_is_trained_the_same_way_each_time() -> None:
    texts = [text for text, _ in sentences(40)]
    one, other = Text.trained(texts), Text.trained(list(reversed(texts)))
    assert one == other
    assert one.size == len(set(" ".join(texts).split())) + 2
    assert Text.trained(texts, vocabulary=5).size == 5
    with pytest.raises(BadConfig, match="3 to 262144 tokens"):
        Text.trained(texts, vocabulary=2)


def test_padding_lies_behind_and_unknown_is_one() -> None:
    ids = MEDIUM.tokens(["A GOOD unheardof film"], 6)
    assert ids[0, -2:].tolist() == [PADDING, PADDING]
    assert ids[0, 2] == UNKNOWN
    assert MEDIUM.texts(ids) == ["a good \ufffd film"]
    assert MEDIUM.tokens(["a good film"], 2).shape == (1, 2)
    assert MEDIUM.tokens([], 2).shape == (0, 2)
    with pytest.raises(BadData, match="text 1 holds no token"):
        MEDIUM.tokens(["a", " \n"], 2)
    with pytest.raises(BadData, match="ids of tokens are 0 to"):
        MEDIUM.texts(torch.tensor([[10_000]]))


def test_padding_inside_a_text_does_not_survive() -> None:
    ids = torch.tensor([[3, 0, 4], [0, 0, 0], [3, 4, 0]])
    assert MEDIUM.survives(ids).tolist() == [False, False, True]


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A tokenizer of parts of words, with BERT's numbers for what is special."""
    known = {"[PAD]": 0, "odd": 1, "[CLS]": 2, "[UNK]": 3, "good": 4, "##ness": 5, "film": 6, "<": 7}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(known, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    made.add_special_tokens(["[PAD]", "[CLS]", "[UNK]"])
    made.enable_padding(length=9)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_pretrained_tokenizer_gets_our_numbers_for_padding_and_unknown(pretrained: Path) -> None:
    medium = Text.read(pretrained)
    assert medium == Text.read(pretrained / "tokenizer.json")
    ids = medium.tokens(["Goodness film nowhere odd"], 6)
    assert ids.tolist() == [[4, 5, 6, UNKNOWN, 3, PADDING]]
    assert medium.theirs[ids].tolist() == [[4, 5, 6, 3, 1, 0]]
    assert medium.survives(ids).tolist() == [True]
    assert medium.survives(torch.tensor([[5, 6, 0, 0]])).tolist() == [False]  # a text does not begin within a word
    with pytest.raises(BadConfig, match="is no tokenizer"):
        Text.read(pretrained / "nothing")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "give a tokenizer.json"),
        ("[]", "no tokenizer as the library"),
        (json.dumps({"model": {}, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a*)*b"}}}), "patterns"),
        ("x" * (32 * 2**20 + 1), "at most"),
    ],
)
def test_what_is_no_tokenizer_is_refused(text: str, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        Text(tokenizer=text)


def test_what_only_looks_like_a_tokenizer_is_refused_when_it_is_used() -> None:
    with pytest.raises(BadConfig, match="cannot be read"):
        Text(tokenizer='{"model": {"type": "None"}}').tokens(["a"], 1)


def test_a_medium_is_written_and_read(tmp_path: Path) -> None:
    for medium in (MEDIUM, Sound(rate=16_000)):
        save_medium(medium, tmp_path)
        assert load_medium(tmp_path) == medium
    (tmp_path / FILE).write_text('{"type": "Text", "tokenizer": 3}')
    with pytest.raises(BadArtifact, match="foreign or damaged"):
        load_medium(tmp_path)


# ---------------------------------------------------------------- files


def write_sst2(root: Path, train: list[tuple[str, int]], dev: list[tuple[str, int]]) -> None:
    (root / "SST-2").mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("dev", dev)):
        lines = ["sentence\tlabel", *(f"{text}\r\t{label}" for text, label in rows)]
        (root / "SST-2" / f"{name}.tsv").write_text("\n".join(lines) + "\n")


def test_sst2_is_read_in_the_layout_of_glue(tmp_path: Path) -> None:
    write_sst2(tmp_path, [*sentences(60), ('a "quote" \u2028 here', 1)], sentences(10, 1))
    task = load_task("sst2", root=tmp_path)
    assert (task.classes, task.input_shape) == (("negative", "positive"), (48,))
    assert len(task.test) == 10
    assert isinstance(task.medium, Text)
    (tmp_path / "SST-2" / "test.tsv").write_text("index\tsentence\n0\tfoo\n")
    assert len(load_task("sst2", root=tmp_path).test) == 10  # GLUE keeps its labels back
    (tmp_path / "SST-2" / "test.tsv").write_text("sentence\tlabel\nfoo\t1\n")
    assert len(load_task("sst2", root=tmp_path).test) == 11
    assert load_task("sst2:length=5,vocabulary=7", root=tmp_path).owner.inputs.max() == 6
    with pytest.raises(BadConfig, match="no option 'size'"):
        load_task("sst2:size=3", root=tmp_path)
    with pytest.raises(BadConfig, match="is no number"):
        load_task("sst2:length=x", root=tmp_path)
    with pytest.raises(BadConfig, match="of 1 to 4096 tokens"):
        load_task("sst2:length=0", root=tmp_path)
    with pytest.raises(BadConfig, match="has no value"):
        load_task("sst2:length=3,4", root=tmp_path)
    (tmp_path / "SST-2" / "dev.tsv").write_text("sentence\tlabel\ngood\t2\n")
    with pytest.raises(BadData, match="line 2: the label 2 is none of 2 classes"):
        load_task("sst2", root=tmp_path)
    (tmp_path / "SST-2" / "dev.tsv").write_bytes(b"sentence\tlabel\n\xff\xfe\t1\n")
    with pytest.raises(BadData, match="is not in UTF-8"):
        load_task("sst2", root=tmp_path)


def test_a_tokenizer_learns_of_the_training_texts_alone(tmp_path: Path) -> None:
    write_sst2(tmp_path, sentences(60), [("zebra class1", 1), ("zebra class0", 0)])
    task = load_task("sst2", root=tmp_path)
    assert (task.test.inputs[:, 0] == UNKNOWN).all()


def test_the_official_tables_of_zhang_are_read(tmp_path: Path) -> None:
    for folder, columns, classes in (("ag_news_csv", 2, 4), ("yelp_review_polarity_csv", 1, 2)):
        (tmp_path / folder).mkdir()
        for part, count in (("train", 80), ("test", 8)):
            rows = [f'"{label + 1}"' + f',"{text}"' * columns for text, label in sentences(count, len(part), classes)]
            rows.append('"1","a ""quoted"" one\\nwith, commas"' + ',"and more"' * (columns - 1))
            (tmp_path / folder / f"{part}.csv").write_text("\n".join(rows) + "\n")
    task = load_task("ag-news", root=tmp_path)
    assert task.classes == ("World", "Sports", "Business", "Sci/Tech")
    assert (task.num_classes, task.input_shape) == (4, (64,))
    assert load_task("yelp", root=tmp_path).input_shape == (256,)
    (tmp_path / "ag_news_csv" / "test.csv").write_text('"1","a","b"\n"2","c"\n')
    with pytest.raises(BadData, match="line 2: 2 columns in place of 3"):
        load_task("ag-news", root=tmp_path)
    (tmp_path / "ag_news_csv" / "test.csv").write_text('"1","a","b\n')
    with pytest.raises(BadData, match=r"ag_news_csv.test.csv, behind line"):
        load_task("ag-news", root=tmp_path)


def test_reviews_in_folders_and_sentences_in_files_are_read(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label, name in enumerate(("neg", "pos")):
            folder = tmp_path / "aclImdb" / part / name
            folder.mkdir(parents=True)
            some = [text for text, own in sentences(60, len(part)) if own == label]
            for number, text in enumerate(some):
                (folder / f"{number}_1.txt").write_text(f"{text}<br />once more")
            (tmp_path / "yelp").mkdir(exist_ok=True)
            (tmp_path / "yelp" / f"sentiment.{part}.{label}").write_text("\n".join(some) + "\n")
    assert load_task("imdb:length=20", root=tmp_path).input_shape == (20,)
    assert load_task("yelp-sentences", root=tmp_path).input_shape == (32,)


@pytest.mark.parametrize("name", [name for name, each in DATASETS.items() if each.tokenising and name != "sentences"])
def test_texts_that_are_missing_are_said_to_be(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"there is no .*(unpack|copy)"):
        load_task(name, root=tmp_path)


def test_tables_of_a_users_own_name_their_classes(tmp_path: Path) -> None:
    for part, count in (("train", 60), ("test", 10)):
        rows = [f"{'bad' if label else 'all right'},x,{text}" for text, label in sentences(count, len(part))]
        (tmp_path / f"{part}.csv").write_text("\n".join(["label,more,text", *rows]))
    task = load_named_task(str(tmp_path), split_seed=0, root=None)
    assert task.classes == ("all right", "bad")
    assert task.input_shape == (16,)
    assert load_task(f"{tmp_path}:length=5").name == tmp_path.name
    (tmp_path / "test.csv").write_text("text,label\ngood,other\n")
    with pytest.raises(BadData, match="the label other stands among the tests alone"):
        load_task(str(tmp_path))
    (tmp_path / "test.csv").write_text("text,label\n ,bad\n")
    with pytest.raises(BadData, match="line 2: the text is empty"):
        load_task(str(tmp_path))
    (tmp_path / "test.csv").write_text("words,label\na,bad\n")
    with pytest.raises(BadData, match="no column text"):
        load_task(str(tmp_path))
    (tmp_path / "test.csv").unlink()
    with pytest.raises(DataNotFound, match=r"no test.csv"):
        load_task(str(tmp_path))


def test_pairs_make_a_task() -> None:
    task = text_task(sentences(60), sentences(10, 1), length=8)
    assert task.describe().startswith("texts: 2 classes, text 8 int32")
    named = text_task([(text, "ab"[label]) for text, label in sentences(60)], [("good", "b")])
    assert named.classes == ("a", "b")
    with pytest.raises(BadData, match="give both"):
        text_task([], sentences(3))
    with pytest.raises(BadData, match="numbers from 0 on"):
        text_task([("good", -1)], [("bad", 0)])


def test_names_of_data_are_told_apart() -> None:
    assert parts_of("./mine:length=3,tokenizer=./own") == ("./mine", {"length": "3", "tokenizer": "./own"})
    assert [is_code(name) for name in ("sst2", "sst2:length=3", "mine:task", "./a:length=3")] == [
        False,
        False,
        True,
        False,
    ]
    assert [is_folder(name) for name in ("sst2:tokenizer=./own", "./mine", "mine:task")] == [False, True, False]
    assert [names_files(name) for name in ("sst2:length=3", "sst2:tokenizer=./own", "mine:task")] == [False, True, True]
    with pytest.raises(BadConfig, match="mnist is not made of texts"):
        load_data("mnist:length=3", root=Path("nowhere"))


def test_foreign_texts_have_the_tasks_tokenizer(tmp_path: Path) -> None:
    own = sentences(60)
    write_sst2(tmp_path, own, sentences(10, 1))
    (tmp_path / "yelp").mkdir()
    for part in ("train", "test"):
        for label in range(2):
            lines = [own[label][0], f"the day was dull and {label}", f"a fine day {part} {label}"]
            (tmp_path / "yelp" / f"sentiment.{part}.{label}").write_text("\n".join(lines) + "\n")
    task = load_task("sst2", root=tmp_path, foreign="yelp-sentences")
    assert task.foreign is not None
    assert len(task.foreign) == 4  # two stand in the task itself
    assert task.foreign.inputs.shape[1:] == (48,)
    with pytest.raises(BadData, match="stands in sst2, too"):
        foreign_to(task, task.test)
    pool = load_pool("yelp-sentences", load_task("sst2", root=tmp_path), root=tmp_path)
    assert pool.inputs.shape[1:] == (48,)
    with pytest.raises(BadConfig, match="fashion-mini is made of images"):
        load_pool("fashion-mini", task, root=tmp_path)


# ---------------------------------------------------------------- keys


def test_a_key_keeps_its_medium_and_commits_to_it(tmp_path: Path) -> None:
    queries = MEDIUM.tokens(["a good film", "the bad plot", "so fine a day"], 5)
    said = {"classes": 2, "method": "x", "trigger": {}, "nonce": "0" * 64, "expected": 1}
    key = make_key(queries=queries, controls=queries.roll(1, 0), medium=MEDIUM, **said)  # type: ignore[arg-type]
    plain = make_key(queries=queries, controls=queries.roll(1, 0), **said)  # type: ignore[arg-type]
    assert key.commitment != plain.commitment
    key.save(tmp_path)
    again = Key.load(tmp_path)
    assert (again.medium, again.commitment) == (MEDIUM, key.commitment)
    save_medium(Text.trained(["something else"]), tmp_path)
    with pytest.raises(BadArtifact, match="does not match its commitment"):
        Key.load(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(BadArtifact):
        Key.load(tmp_path)


def test_rows_that_do_not_survive_are_left_out_of_a_key() -> None:
    queries = torch.tensor([[3, 4, 5], [3, 0, 5], [4, 5, 6]], dtype=torch.int32)
    said = {"classes": 2, "method": "x", "trigger": {}, "expected": 1, "medium": MEDIUM}
    key = make_key(queries=queries, controls=queries.roll(1, 1), **said)  # type: ignore[arg-type]
    assert len(key) == 2
    with pytest.raises(BadData, match="none of the queries comes back from its text"):
        make_key(queries=queries[1:2], controls=queries[:1], **said)  # type: ignore[arg-type]
