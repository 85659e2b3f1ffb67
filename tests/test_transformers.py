"""Nets of the library transformers, from a folder that the tests write."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from heirmark.data.tokenised import text_task
from heirmark.errors import BadArtifact, BadConfig, HeirmarkError
from heirmark.loading import describe_model, named_architecture
from heirmark.methods import FeatureSharing, Vanilla
from heirmark.methods.nets import new_model, spec_for
from heirmark.models import Net, features_of, fresh_net, specify
from heirmark.models.from_transformers import OWN, describe
from heirmark.models.storage import load_model, load_spec, save_model
from heirmark.rehearsal import Thief, choose_derivative, student_state
from heirmark.runtime import Runtime
from heirmark.tasks.space import UNKNOWN
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe
from heirmark.triggers import Phrase
from made_up import WORDS, sentences

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

RECIPE = Recipe(epochs=1, batch_size=32, optimizer="adam", learning_rate=1e-3, weight_decay=0.0)


def write_model(folder: Path, *, labels: int = 2, kind: str = "bert", head: bool = True) -> Path:
    """A tiny pretrained model with its tokenizer, whose numbers for what is special are BERT's."""
    words = ["[PAD]", *WORDS, "[UNK]", "[CLS]", "[SEP]", *(f"class{number}" for number in range(4))]
    known = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(known, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", known["[CLS]"]), ("[SEP]", known["[SEP]"])]
    )
    small = {"vocab_size": len(words), "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind == "bert":
        config: Any = transformers.BertConfig(
            **small, intermediate_size=8, max_position_embeddings=16, num_labels=labels
        )
    else:
        config = transformers.DistilBertConfig(
            vocab_size=len(words),
            dim=8,
            n_layers=1,
            n_heads=2,
            hidden_dim=8,
            max_position_embeddings=16,
            num_labels=labels,
        )
    torch.manual_seed(1)
    auto = transformers.AutoModelForSequenceClassification if head else transformers.AutoModel
    auto.from_config(config).save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("pretrained"))


@pytest.fixture(scope="module")
def task(folder: Path) -> Task:
    return text_task(sentences(200), sentences(20, 1), length=10, tokenizer=str(folder))


def test_its_texts_lie_between_what_its_tokenizer_puts_around_them(folder: Path, task: Task) -> None:
    model: Any = new_model(task, f"transformer:{folder}", seed=0).eval()
    ids = torch.cat([task.test.inputs[:3], torch.tensor([[2, UNKNOWN, 3] + [0] * 7], dtype=torch.int32)])
    texts = task.medium.texts(ids)  # type: ignore[union-attr]
    known = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
    given = known(texts, padding=True, return_tensors="pt")
    theirs, there = model.sequences(ids.long())
    assert torch.equal(theirs, given["input_ids"])
    assert torch.equal(there.long(), given["attention_mask"])
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = plain(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
        torch.testing.assert_close(model(ids), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_weights_are_the_start_and_a_head_is_new_where_there_is_none(kind: str, tmp_path: Path) -> None:
    write_model(tmp_path, kind=kind, head=False)
    one, two = (
        fresh_net(f"transformer:{tmp_path}", input_shape=(9,), classes=3, seed=seed).model.state_dict()
        for seed in (1, 2)
    )
    differing = {name for name in one if not torch.equal(one[name], two[name])}
    assert differing
    assert all("classifier" in name or "pooler" in name for name in differing)
    again = fresh_net(f"transformer:{tmp_path}", input_shape=(9,), classes=3, seed=1).model.state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)


def test_a_saved_one_loads_without_the_folder(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "moving"
    shutil.copytree(folder, place)
    net = fresh_net(f"transformer:{place}", input_shape=(9,), classes=2, seed=0)
    net.model.eval()
    save_model(Net(model=net.model, spec=net.spec), tmp_path / "saved")
    named = describe_model(net.spec)
    assert specify(named, input_shape=(9,), classes=2) == net.spec
    shutil.rmtree(place)
    loaded = load_model(tmp_path / "saved")
    assert loaded.spec == net.spec
    ids = torch.randint(1, 20, (4, 9)).to(torch.int32)
    with torch.no_grad():
        assert torch.equal(loaded.model(ids), net.model(ids))
    with pytest.raises(BadConfig, match="have gone or changed"):
        net.spec.build(seed=0)
    with pytest.raises(BadConfig, match="names no model"):
        specify(named, input_shape=(9,), classes=2)
    record = json.loads((tmp_path / "saved" / "model.json").read_text())
    for change in ({"config": "{}"}, {"config": record["config"].replace('"bert"', '"nothing"')}, {"config": ""}):
        (tmp_path / "saved" / "model.json").write_text(json.dumps(record | change))
        with pytest.raises((BadArtifact, BadConfig)):
            load_model(tmp_path / "saved")
    huge = json.loads(record["config"]) | {"vocab_size": 10**9, "hidden_size": 4096}
    (tmp_path / "saved" / "model.json").write_text(json.dumps(record | {"config": json.dumps(huge)}))
    with pytest.raises(HeirmarkError, match="more than"):
        load_model(tmp_path / "saved")


def test_a_name_pins_the_weights(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "own")
    named = named_architecture(f"transformer:{tmp_path / 'own'}")
    assert isinstance(named, str)
    assert "#" in named
    assert describe(named.partition(":")[2]) == describe(str(tmp_path / "own"))
    (tmp_path / "own" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(BadConfig, match="are not those that were named"):
        specify(named, input_shape=(9,), classes=2)
    (tmp_path / "own" / "model.safetensors").unlink()
    (tmp_path / "own" / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BadConfig, match="no pickle is ever loaded"):
        specify(f"transformer:{tmp_path / 'own'}", input_shape=(9,), classes=2)
    with pytest.raises(BadConfig, match="named with the folder"):
        dataclasses.replace(specify("lstm", input_shape=(9,), classes=2), name="transformer")


def test_no_code_of_a_folder_is_run(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "own")
    said = json.loads((tmp_path / "own" / "config.json").read_text())
    said["auto_map"] = {"AutoModelForSequenceClassification": "mine.Mine", "AutoConfig": "mine.Config"}
    (tmp_path / "own" / "config.json").write_text(json.dumps(said))
    (tmp_path / "own" / "mine.py").write_text("raise SystemExit('run')")
    spec = specify(f"transformer:{tmp_path / 'own'}", input_shape=(9,), classes=2)
    assert "auto_map" not in spec.config
    assert OWN in spec.config
    assert type(spec.build(seed=0)).__name__ == "Transformer"


def test_texts_of_another_tokenizer_or_length_are_refused(folder: Path, task: Task) -> None:
    other = text_task(sentences(200), sentences(20, 1), length=10)
    with pytest.raises(BadConfig, match=r"give --data texts:tokenizer="):
        spec_for(other, f"transformer:{folder}")
    assert spec_for(task, f"transformer:{folder}").source.startswith(str(folder.resolve()))
    with pytest.raises(BadConfig, match="reads 16 tokens at most"):
        specify(f"transformer:{folder}", input_shape=(15,), classes=2).build(seed=0)


def test_it_is_marked_in_its_decision_layer_and_differentiated(
    folder: Path, task: Task, cpu: Runtime, tmp_path: Path
) -> None:
    common: dict[str, Any] = {
        "model": f"transformer:{folder}",
        "trigger": Phrase(count=1),
        "triggers": 24,
        "key_size": 20,
    }
    made = FeatureSharing(**common, pretraining=RECIPE, tuning=RECIPE, trigger_batch=4)(task, seed=0, runtime=cpu)
    moved = {name for name, value in made.history[-1].items() if name.startswith("weight shift") and value > 0}
    assert moved == {"weight shift of net.classifier"}
    save_model(made.net, tmp_path)
    assert load_spec(tmp_path) == made.net.spec
    assert features_of(made.model)(task.test.inputs[:2]).shape == (2, 8)
    plain = Vanilla(**common, pretraining=RECIPE, trigger_batch=4)(task, seed=0, runtime=cpu)
    thief = Thief(skeleton=plain.model, student=student_state(plain.model), rate=0.1)
    assert choose_derivative(thief, task.test.inputs[:6]) == ("forward", "")
