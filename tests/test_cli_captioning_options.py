"""Every option has its effect, or is refused as wrong use."""

import pytest

from paligemma_lib.cli import main
from paligemma_lib.cli.captioning_options import add_captioning_options, check_options
from paligemma_lib.cli.console import WrongUse
from paligemma_lib.cli.parser import Parser
from paligemma_lib.decode import (
    Beam,
    BestOf,
    Greedy,
    NoRepeatNgram,
    Processed,
    RepetitionPenalty,
    Sample,
)


def test_the_model_is_loaded_as_asked(monkeypatch, tmp_path):
    asked = []

    def load(*args, **options):
        asked.append((*args, options["image_size"]))
        raise ValueError("enough")

    monkeypatch.setattr("paligemma_lib.captioner.load", load)
    assert main(["caption", "--checkpoint", "c.npz", "--weights", "nf4"]) == 1
    assert main(["evaluate", "--out-dir", str(tmp_path), "--image-size", "192"]) == 1
    assert asked == [("c.npz", None, None, {}, "nf4", None), ("nano", None, None, {}, None, 192)]
    assert main(["caption", "--weights", "int4"]) == 2


def sampler_of(*words):
    parser = Parser("paligemma caption", "")
    add_captioning_options(parser)
    args = parser.read(words)
    check_options(args)
    return args.how


@pytest.mark.parametrize(
    ("words", "sampler"),
    [
        ("", Greedy()),
        ("--sampler=beam", Beam(4)),
        ("--sampler=beam --beams 2 --length-penalty 0.6", Beam(2, 0.6)),
        ("--sampler=beam --no-repeat-ngram 3", Beam(4, no_repeat_ngram=3)),
        ("--sampler=sample --top-k 5 --seed 3", Sample(1.0, 5, None)),
        ("--sampler=sample --temperature 0", Sample(0.0)),
        (
            "--sampler=sample --samples 3 --temperature 0.5 --top-p 0.9",
            BestOf(3, Sample(0.5, None, 0.9)),
        ),
        ("--repetition-penalty 1.2", Processed(Greedy(), (RepetitionPenalty(1.2),))),
        (
            "--sampler=sample --samples 2 --repetition-penalty 1.2 --no-repeat-ngram 2",
            BestOf(2, Processed(Sample(), (RepetitionPenalty(1.2), NoRepeatNgram(2)))),
        ),
        (
            "--sampler=paligemma_lib.decode:Greedy --no-repeat-ngram 2",
            Processed(Greedy(), (NoRepeatNgram(2),)),
        ),
    ],
)
def test_options_make_the_sampler(words, sampler):
    assert sampler_of(*words.split()) == sampler


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--temperature 0.5", "--temperature has no effect with --sampler=greedy: it is of sample"),
        ("--top-k 5", "--top-k has no effect"),
        ("--top-p 0.5", "--top-p has no effect"),
        ("--samples 2", "--samples has no effect"),
        ("--seed 0", "--seed=0 has no effect: nothing is drawn at random"),
        ("--sampler=beam --seed 1", "--seed=1 has no effect"),
        ("--sampler=beam --top-p 0.5", "--top-p has no effect with --sampler=beam"),
        (
            "--sampler=sample --beams 2",
            "--beams has no effect with --sampler=sample: it is of beam",
        ),
        ("--beams 2", "--beams has no effect"),
        ("--length-penalty 1", "--length-penalty has no effect"),
        ("--sampler=sample --temperature 0 --seed 1", "--seed=1 has no effect"),
        (
            "--sampler=sample --temperature 0 --top-k 5",
            "--top-k has no effect with --temperature=0",
        ),
        (
            "--sampler=sample --temperature 0 --top-p 1",
            "--top-p has no effect with --temperature=0",
        ),
        ("--sampler=sample --temperature 0 --samples 2", "draws at random"),
        ("--sampler=beam --repetition-penalty 1.2", "--repetition-penalty has no effect"),
        ("--sampler=paligemma_lib.decode:Greedy --top-k 3", "--top-k has no effect"),
        ("--sampler=none", "--sampler=none: expected greedy"),
        ("--sampler=beam --beams 0", "size=0"),
        ("--sampler=beam --length-penalty nan", "length_penalty=nan"),
        ("--sampler=sample --temperature -1", "temperature=-1.0"),
        ("--sampler=sample --top-p 1.5", "top_p=1.5"),
        ("--sampler=sample --samples 0", "rows=0"),
        ("--sampler=sample --seed -1", "--seed=-1"),
        ("--no-repeat-ngram 0", "size=0"),
        ("--repetition-penalty 0", "penalty=0"),
        ("--batch-size 0", "--batch-size=0, expected a whole number of at least 1"),
        ("--max-new-tokens 0", "--max-new-tokens=0"),
        ("--image-size 0", "--image-size=0"),
    ],
)
def test_what_has_no_effect_is_wrong_use(words, message):
    with pytest.raises(WrongUse) as found:
        sampler_of(*words.split())
    assert message in str(found.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("caption --split test", "--split has no effect without --data"),
        ("caption --data-dir x a.jpg", "--data-dir has no effect without --data"),
        ("caption --seed 3 a.jpg", "--seed=3 has no effect"),
        ("evaluate --out-dir {tmp} --images x", "--images has no effect without --data"),
        ("evaluate --out-dir {tmp} --data {tmp} --data-dir x", "--data-dir has no effect"),
        ("evaluate --out-dir {tmp} --data {tmp}#a --split b", "name two splits"),
        ("evaluate --out-dir {tmp} --compare a b --prompt x", "--compare takes no --prompt"),
        ("evaluate --out-dir {tmp} --compare a b --sampler beam", "--compare takes no --sampler"),
        ("evaluate --out-dir {tmp} --compare a b --ignore-exif", "takes no --ignore-exif"),
        ("evaluate --out-dir {tmp} --temperature 1", "--temperature has no effect"),
        ("data {tmp} --show 0 --json", "--json has no effect with --show"),
        ("data {tmp} --show 0 --out a.png", "--out has no effect with --show"),
        ("data {tmp} --show -1", "--show=-1"),
        ("data {tmp} --out sheet.jpg", "expected a name that ends in .png"),
        ("data {tmp} --masks a.npz", "--masks has no effect without --out"),
        ("caption --masks a.npz a.jpg", "--masks has no effect without --out"),
        ("caption --masks a.npz --out a.csv a.jpg", "--masks has no effect without --out"),
        ("plan --decode --search", "--search tries ways to train"),
        ("sample-data {tmp}/x --count 0", "--count=0"),
        ("sample-data {tmp}/x --seed -1", "--seed=-1"),
    ],
)
def test_commands_refuse_what_has_no_effect(words, message, tmp_path, capsys):
    assert main(words.format(tmp=tmp_path).split()) == 2
    assert message in capsys.readouterr().err
