"""Folders of sounds: the layout of Speech Commands, speakers apart, and files that are none."""

from __future__ import annotations

import math
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heirmark.data import load_images, load_task
from heirmark.data.sounds import ALL_WORDS, OTHER_WORDS, WORDS, read_speech_commands
from heirmark.data.waveforms import read_sound
from heirmark.errors import BadData, DataNotFound
from heirmark.tasks.media import Sound


def tone(hertz: float, *, count: int = 1000, rate: int = 1000) -> np.ndarray[Any, Any]:
    return (8000 * np.sin(2 * math.pi * hertz * np.arange(count) / rate)).astype("<i2")


def write(path: Path, samples: Any, *, rate: int = 1000, channels: int = 1, width: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples).tobytes())
    return path


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A folder in Speech Commands' layout: two words at 1 kHz, ten speakers, each word twice."""
    for word, hertz in (("low", 40), ("high", 200)):
        for speaker in range(10):
            for take in range(2):
                samples = tone(hertz + speaker + take / 2, count=900, rate=1000)
                write(tmp_path / "words" / word / f"s{speaker}_nohash_{take}.wav", samples, rate=1000)
    write(tmp_path / "words" / "_background_noise_" / "hum.wav", tone(9, count=9000, rate=1000), rate=1000)
    return tmp_path / "words"


def test_speakers_stand_apart_and_short_sounds_are_filled_up(spoken: Path) -> None:
    task = load_task(f"{spoken}", seed=1)
    assert task.classes == ("high", "low")
    assert task.input_shape == (1, 1000)
    assert task.medium == Sound(rate=1000)
    assert task.owner.inputs.dtype == torch.int16
    assert bool((task.owner.inputs[:, :, 900:] == 0).all())
    heard = [set(split.groups.tolist()) for split in task.splits.values()]  # type: ignore[union-attr]
    assert sum(map(len, heard)) == len(set.union(*heard)) == 10
    assert sum(map(len, task.splits.values())) == 40
    again = load_task(f"{spoken}", seed=1)  # of what is packed already
    assert again.digest() == task.digest()
    assert len(list((spoken / "packed").iterdir())) == 1


def test_the_list_says_what_tests(spoken: Path) -> None:
    (spoken / "testing_list.txt").write_text("low/s3_nohash_0.wav\nlow/s3_nohash_1.wav\nhigh/s3_nohash_0.wav\n")
    train, test, _ = load_images(f"{spoken}")
    assert (len(train), len(test), test.labels.tolist()) == (37, 3, [0, 1, 1])
    with pytest.raises(BadData, match="share 1 groups, as speakers are"):  # of speaker 3 one sound is left to train
        load_task(f"{spoken}")


def test_parts_that_a_user_made_are_kept_and_need_no_speakers(tmp_path: Path) -> None:
    for part, count in (("train", 12), ("test", 2)):
        for word, hertz in (("a", 50), ("b", 90)):
            for number in range(count):
                write(tmp_path / part / word / f"{number}.wav", tone(hertz + number + (part == "test") / 2))
    train, test, classes = load_images(f"{tmp_path}")
    assert (len(train), len(test), classes, train.groups) == (24, 4, ("a", "b"), None)
    assert load_task(f"{tmp_path}").describe().startswith(f"{tmp_path.name}: 2 classes, wave 1x1000 int16")


def test_speech_commands_by_name_takes_its_words_at_its_rate(tmp_path: Path) -> None:
    root = tmp_path / "speech_commands_v0.02"
    with pytest.raises(DataNotFound, match="holds no sound of yes, no, up, down, left: download"):
        load_images("speech-commands", root=tmp_path)
    for number, word in enumerate(WORDS):
        for speaker in range(8):
            write(root / word / f"{speaker}_nohash_0.wav", tone(100 + 9 * number + speaker, rate=16000), rate=16000)
    train, test, classes = load_images("speech-commands", root=tmp_path)
    assert classes == WORDS
    assert train.inputs.shape[1:] == (1, 16000)
    assert len(train) + len(test) == 80
    assert set(WORDS) | set(OTHER_WORDS) == set(ALL_WORDS)
    assert len(ALL_WORDS) == 35
    write(root / "go" / "9_nohash_0.wav", tone(9))
    with pytest.raises(BadData, match=r"9_nohash_0[.]wav has 1,000 samples a second and others have 16,000: resample"):
        read_speech_commands(tmp_path, WORDS)


@pytest.mark.parametrize(
    ("samples", "settings", "words"),
    [
        (tone(9, count=2100), {}, "lasts 2.1 seconds: cut it into sounds of at most 2 seconds"),
        (tone(9), {"channels": 2}, "has 2 channels: mix it down to one"),
        (tone(9)[:0], {}, "holds no sample: remove it"),
        (tone(9), {"rate": 10}, "says 10 samples a second: resample"),
    ],
)
def test_sounds_that_are_of_no_use_are_refused_with_a_remedy(
    samples: Any, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "one.wav", samples, **settings)
    with pytest.raises(BadData, match=words):
        read_sound(path, longest=2.0)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "one.wav", tone(9))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(BadData, match="says it holds 1,000 samples and has 950: it is truncated"):
        read_sound(path, longest=2.0)
    with pytest.raises(BadData, match="cannot be read"):
        read_sound(tmp_path / "none.wav", longest=2.0)
    with path.open("wb") as file:
        file.truncate(2**25)
    with pytest.raises(BadData, match="has 33,554,432 bytes: cut it"):
        read_sound(path, longest=2.0)


def floats(path: Path, samples: Any) -> Path:
    """A WAV file of 32-bit floats."""
    body = np.asarray(samples, "<f4").tobytes()
    head = struct.pack("<HHIIHH", 3, 1, 1000, 4000, 4, 32)
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt " + struct.pack("<I", 16) + head
        + b"data" + struct.pack("<I", len(body)) + body
    )  # fmt: skip
    return path


def test_other_kinds_of_files_are_read_by_soundfile(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(str(tmp_path / "one.flac"), tone(50), 1000, subtype="PCM_16")
    samples, rate = read_sound(tmp_path / "one.flac", longest=2.0)
    assert rate == 1000
    assert torch.equal(samples, torch.from_numpy(tone(50)))
    samples, _ = read_sound(floats(tmp_path / "floats.wav", [0.5, -1.0, 1.0]), longest=2.0)
    assert samples.tolist() == [16384, -32768, 32767]
    with pytest.raises(BadData, match="NaN or infinite"):
        read_sound(floats(tmp_path / "nan.wav", [0.5, float("nan")]), longest=2.0)
    with pytest.raises(BadData, match=r"up to 3, out of \[-1, 1\]: divide"):
        read_sound(floats(tmp_path / "loud.wav", [0.5, -3.0]), longest=2.0)
    (tmp_path / "text.wav").write_text("no sound at all")
    with pytest.raises(BadData, match="is no sound that can be read"):
        read_sound(tmp_path / "text.wav", longest=2.0)


def test_what_needs_soundfile_says_so_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(
        BadData, match=r"is no WAV of 16-bit PCM, and others need soundfile: pip install 'heirmark\[sound\]'"
    ):
        read_sound(floats(tmp_path / "floats.wav", [0.5]), longest=2.0)
