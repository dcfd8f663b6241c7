"""The defaults drop nothing; one option of a section switches the section on."""

from minimind.config import Config, load
from minimind.data.options import CleanConfig, DedupConfig, PrepareOptions


def test_cleaning_and_deduplication_are_off_until_one_of_their_options_is_given() -> None:
    assert (PrepareOptions().clean, PrepareOptions().dedup, PrepareOptions().max_bad_rows) == (None, None, 0)
    options = load(PrepareOptions, None, {"clean.max_broken": "0.5", "dedup.near": "true"})
    assert options.clean == CleanConfig(max_broken=0.5)
    assert options.dedup == DedupConfig(exact=True, near=True)


def test_every_option_says_what_it_is() -> None:
    for section in (PrepareOptions, CleanConfig, DedupConfig):
        assert issubclass(section, Config)
        assert all(field.description for field in section.model_fields.values())
