import csv
import io

import pytest
from flickr8k_sources import csv_table, token_table
from hypothesis import given
from hypothesis import strategies as st

from flickr8k_tfds.caption_tables import parse_csv, parse_tokens
from flickr8k_tfds.trees import DatasetError


def parse(text: str | bytes):
    return parse_csv(text.encode() if isinstance(text, str) else text, "captions.txt")


def reasons(table):
    return {defect.where: defect.why for defect in table.defects}


def test_csv_keeps_quoted_commas_and_doubled_quotes():
    table = parse('image,caption\na.jpg,"A dog , a cat ."\na.jpg,"A ""big"" dog ."\n')
    assert table.captions == {"a.jpg": ["A dog , a cat .", 'A "big" dog .']}
    assert not table.defects


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_csv_reads_any_line_ends_and_byte_order_mark(ends, mark):
    data = mark + ends.join(["image,caption", "a.jpg,One .", "b.jpg,Two ."]).encode()
    assert parse(data).captions == {"a.jpg": ["One ."], "b.jpg": ["Two ."]}


def test_latin1_bytes_are_read_and_noted():
    table = parse(b"image,caption\na.jpg,A caf\xe9 .\nb.jpg,Caf\xc3\xa9 .\n")
    assert table.captions == {"a.jpg": ["A café ."], "b.jpg": ["Café ."]}
    assert table.latin1_rows == [2]


def test_bad_rows_are_left_out_with_place_and_reason():
    table = parse(
        'image,caption\na.jpg,Good .\n\na.jpg\na.jpg,"open\na.jpg,  \n'
        "a.jpg,one, two\nsub/a.jpg,inner .\na.jpg,Last .\n,no name\n"
        f"a.jpg,{'x' * 10_000}\na.jpg,A \0 .\n"
    )
    assert table.captions == {"a.jpg": ["Good .", "Last ."]}
    why = reasons(table)
    assert why["captions.txt:3"] == "blank line"
    assert "1 fields" in why["captions.txt:4"]
    assert "quote is open" in why["captions.txt:5"]
    assert why["captions.txt:6"] == "empty caption"
    assert "needs quotes" in why["captions.txt:7"]
    assert "not a bare file name" in why["captions.txt:8"]
    assert "not a bare file name" in why["captions.txt:10"]
    assert "at most 10000" in why["captions.txt:11"]
    assert "NUL" in why["captions.txt:12"]
    assert len(why) == 9


def test_every_caption_knows_its_line():
    table = parse("image,caption\na.jpg,One .\nb.jpg,Two .\n\na.jpg,Three .\n")
    assert table.lines == {"a.jpg": [2, 5], "b.jpg": [3]}


def test_a_quoted_header_is_a_header():
    assert parse('"image","caption"\n"a.jpg","One ."\n').captions == {"a.jpg": ["One ."]}


def test_a_file_of_bad_rows_stops_soon():
    with pytest.raises(DatasetError, match="more than 100,000 bad rows, the last is line 100002"):
        parse(b"image,caption\n" + b"\n" * (1 << 20))


@pytest.mark.parametrize("name", ["../../x.jpg", "/etc/x.jpg", "..\\x.jpg", "C:\\x.jpg"])
@pytest.mark.parametrize("parser", ["csv", "tokens"])
def test_a_name_that_escapes_stops(name, parser):
    with pytest.raises(DatasetError, match=r"table:\d: .*points outside"):
        if parser == "csv":
            parse_csv(f"image,caption\n{name},A dog .\n".encode(), "table")
        else:
            parse_tokens(f"{name}#0\tA dog .\n".encode(), "table")


@pytest.mark.parametrize("data", [b"", b"a.jpg,A dog .\n", b"\xff\xfei\0m\0a\0g\0e\0"])
def test_a_missing_header_is_an_error_that_says_so(data):
    with pytest.raises(DatasetError, match="expected the header 'image,caption'"):
        parse(data)


def test_tokens():
    table = parse_tokens(
        b"a.jpg#0\tA dog , a cat .\r\na.jpg#1\tTwo .\nb.jpg.1#0\tThree .\n"
        b"a.jpg#2 Tab lost .\na.jpg\tNo number .\na.jpg#x\tOdd number .\n",
        "tokens",
    )
    assert table.captions == {"a.jpg": ["A dog , a cat .", "Two ."], "b.jpg.1": ["Three ."]}
    why = reasons(table)
    assert "no tab" in why["tokens:4"]
    assert "image#number" in why["tokens:5"]
    assert "image#number" in why["tokens:6"]


CAPTION = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1
).filter(str.strip)
TABLE = st.dictionaries(st.from_regex(r"[a-z0-9_]{1,9}\.jpg", fullmatch=True), st.lists(CAPTION))


@given(TABLE)
def test_csv_round_trip_equals_what_the_csv_module_reads(captions):
    captions = {name: texts for name, texts in captions.items() if texts}
    data = csv_table(captions)
    assert parse(data).captions == captions
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))[1:]
    assert [(n, c) for n, texts in parse(data).captions.items() for c in texts] == [
        (name, caption) for name, caption in rows
    ]


@given(TABLE)
def test_tokens_round_trip(captions):
    captions = {name: texts for name, texts in captions.items() if texts}
    assert parse_tokens(token_table(captions), "tokens").captions == captions


@given(st.binary(max_size=200))
def test_any_bytes_give_a_table_or_a_clear_error(noise):
    try:
        table = parse(b"image,caption\na.jpg,A dog .\n" + noise)
    except DatasetError as error:
        assert "points outside" in str(error)
    else:
        assert table.captions["a.jpg"][0].startswith("A dog .")


def test_all_real_captions_equal_what_csv_reads(shared):
    path = shared / "flickr8k" / "captions_all.txt"
    table = parse(path.read_bytes())
    with open(path, newline="") as file:
        rows = [(row[0], row[1]) for row in csv.reader(file)][1:]
    assert [(n, c) for n, texts in table.captions.items() for c in texts] == rows
    assert len(rows) == 40_455
    assert not table.defects and not table.latin1_rows


def test_the_original_table_says_the_same_as_kaggles(shared):
    folder = shared / "flickr8k"
    kaggle = parse((folder / "captions_all.txt").read_bytes())
    uiuc = parse_tokens(
        (folder / "uiuc_text" / "Flickr8k.token.txt").read_bytes(), "Flickr8k.token.txt"
    )
    assert len(uiuc.captions.pop("2258277193_586949ec62.jpg.1")) == 5
    assert uiuc.captions == kaggle.captions
