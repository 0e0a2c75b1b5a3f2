"""Whatever stands in a config, a record or on a command line, is a run or a clear error."""

from fuzzing import EXAMPLES, changed_json, fuzz
from hypothesis import strategies as st

from paligemma_lib.run import RunConfig
from paligemma_lib.run.config_files import load, split_changes
from paligemma_lib.run.options import ConfigError, options_of, parse
from paligemma_lib.run.record import completed, record_of

DEFAULT = RunConfig().to_dict()
NAMES = [each.name for each in options_of(RunConfig)]
ODD_WORDS = st.one_of(
    st.sampled_from(["", "nan", "-inf", "1e999", "0x10", "True", "()", "('a',)", "[", "{", "None"]),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=12),
)


@EXAMPLES
def test_any_tree_of_values(examples):
    def check(values):
        if not isinstance(values, dict):
            values = {"data": values}
        try:
            assert parse(RunConfig, parse(RunConfig, values).to_dict())
        except ConfigError as error:
            assert error.problems and len(str(error)) < 20_000

    fuzz(examples, check, changed_json(DEFAULT))


@EXAMPLES
def test_any_change_of_the_command_line(examples):
    def check(name, place, word):
        changes, rest = split_changes([f"--config.{name}{place}={word}"])
        assert not rest
        try:
            load("demo", changes)
        except ConfigError as error:
            assert error.problems and len(str(error)) < 20_000

    names = st.one_of(st.sampled_from(NAMES), st.text("abc_.", max_size=8))
    places = st.sampled_from(["", "", "", "[0]", "[0].from_step", "[9]", ".x", "[-1]"])
    fuzz(examples, check, names, places, ODD_WORDS)


@EXAMPLES
def test_any_record_of_a_run(examples):
    record = record_of(RunConfig(), "5f0c")

    def check(found):
        if isinstance(found, dict):
            assert completed(found, record).keys() >= record.keys()

    fuzz(examples, check, changed_json(record))
