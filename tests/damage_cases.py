"""Six whole records, and what becomes of damaged ones among them."""

from data_cases import photo

from paligemma_lib.data import replace_corrupt

COUNT = 6  # intact records of each source
NAMES = [f"{number}.png" for number in range(COUNT)]


def write_images(folder):
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(photo(number))
    return folder


def all_read(source):
    """The intact records, and what is said of the others."""
    records, problems = [], []
    for number in range(len(source)):
        try:
            records += source.read([number])
        except (ValueError, OSError) as error:
            problems.append(f"{source.where(number)}: {error}")
    return records, problems


def check_replaced(source, damaged: int) -> None:
    """Another record stands in for each damaged one; nothing is lost, and nothing stays."""
    replaced = replace_corrupt(source)
    names = [record.image_id for record in replaced.read(range(len(replaced)))]
    assert len(names) == COUNT + damaged and len(replaced.damaged) == damaged
    assert len(set(names)) == COUNT
    assert [r.image_id for r in replaced.read(range(len(replaced)))] == names
